//! The door: connections are taken, and each goes to a worker, waits for one, or is told that there is none.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::lobby::Lobby;
use super::{Fleet, LOOK_SLICE, Plan, Stage, Worker};
use crate::os;
use crate::server::door::{Gate, Places};

/// What the door finds.
pub(super) enum Vacancy {
    /// Somebody who serves, or who would.
    With(Arc<Worker>),
    /// There is none yet.
    Soon,
    Full,
    /// There is none and cannot be one for now; another one is tried soon.
    NoneCanBeMade,
    Closed,
}

impl Fleet {
    pub(super) fn vacancy(&self) -> Vacancy {
        let inner = self.lock();
        if inner.stage != Stage::Serving {
            return Vacancy::Closed;
        }
        let found = match self.plan {
            Plan::Parent | Plan::All => inner.serving.first(),
            Plan::Each(most) if inner.serving.len() >= most => {
                let leaving = inner.serving.iter().any(|worker| worker.is_leaving());
                return if leaving { Vacancy::Soon } else { Vacancy::Full };
            }
            Plan::Each(_) => inner.spare.as_ref(),
        };
        match found.filter(|worker| !worker.supervisor.is_gone()) {
            Some(worker) => Vacancy::With(worker.clone()),
            None if inner.none_can_be_made => Vacancy::NoneCanBeMade,
            None => Vacancy::Soon,
        }
    }

    /// Gives a connection to a worker. Waits while that takes none.
    fn give(&self, worker: &Arc<Worker>, stream: Arc<UnixStream>, greeted: bool) {
        if matches!(self.plan, Plan::Each(_)) {
            let mut inner = self.lock();
            let Some(spare) = inner.spare.take_if(|spare| spare.number == worker.number) else {
                // it has ended meanwhile
                return inner.left.push_back((stream, greeted));
            };
            *spare.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.clone());
            inner.serving.push(spare);
            drop(inner);
            self.changed.notify_all();
        }
        worker.supervisor.serve(stream, greeted);
    }

    /// The life of the door: takes connections for as long as there are workers for them.
    pub(super) fn keep_door(&self, mut gate: Gate, places: &Places, heard: &UnixStream) {
        let mut lobby = Lobby::new();
        loop {
            let vacancy = self.vacancy();
            lobby.look(Instant::now());
            if let Vacancy::With(worker) = &vacancy
                && let Some((stream, greeted)) =
                    self.next_left().or_else(|| lobby.next().map(|stream| (Arc::new(stream), false)))
            {
                self.give(worker, stream, greeted);
                continue;
            }
            if matches!(vacancy, Vacancy::Full | Vacancy::NoneCanBeMade) {
                let of_lobby = |lobby: &mut Lobby| lobby.next().map(|stream| (Arc::new(stream), false));
                while let Some((stream, _)) = self.next_left().or_else(|| of_lobby(&mut lobby)) {
                    self.turn_away(&stream, &vacancy);
                }
            }
            let Some(source) = gate.source() else { return };
            let pause = gate.closed_until().is_some();
            let each = matches!(self.plan, Plan::Each(_));
            let soon = |slice: Duration| PollTimeout::try_from(slice).unwrap_or(PollTimeout::NONE);
            let (takes, timeout) = match vacancy {
                Vacancy::Closed => return,
                _ if pause => (false, soon(LOOK_SLICE / 2)),
                // whoever shares a worker waits at the socket
                Vacancy::Soon => (each && lobby.has_room(), soon(LOOK_SLICE)),
                Vacancy::With(_) | Vacancy::Full | Vacancy::NoneCanBeMade => (true, lobby.timeout(Instant::now())),
            };
            let listener = if takes { PollFlags::POLLIN } else { PollFlags::empty() };
            let mut fds = vec![PollFd::new(heard.as_fd(), PollFlags::POLLIN), PollFd::new(source.as_fd(), listener)];
            fds.extend(lobby.descriptors());
            let _ = poll(&mut fds, timeout);
            let (rung, comes) = (fds[0].any().unwrap_or(false), fds[1].any().unwrap_or(false));
            drop(fds);
            if rung {
                let mut stream = heard;
                while matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
                continue;
            }
            gate.reopens(Instant::now());
            gate.refill();
            if !takes || !comes {
                continue;
            }
            let Some((stream, _)) = gate.accept(|| Ok(())) else { continue };
            match getsockopt(&stream, sockopt::PeerCredentials) {
                Ok(peer) if !places.knows(peer.uid(), peer.pid()) => os::let_go_of_rest(&stream),
                // others may have gone since it was looked
                Ok(peer) => match self.vacancy() {
                    Vacancy::Closed => return,
                    vacancy @ (Vacancy::Full | Vacancy::NoneCanBeMade) => self.turn_away(&stream, &vacancy),
                    Vacancy::With(_) | Vacancy::Soon if each => lobby.add(stream, peer.uid()),
                    Vacancy::With(worker) => self.give(&worker, Arc::new(stream), false),
                    Vacancy::Soon => self.lock().left.push_back((Arc::new(stream), false)),
                },
                Err(e) => log::error!("cannot read a peer's credentials: {e}"),
            }
        }
    }
}
