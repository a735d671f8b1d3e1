//! Where each connection has a worker of its own: those that have not said anything yet, or for which there is no worker yet.
//!
//! A worker takes memory and time to make, so that nobody gets one by merely being there: who is silent has the time that hello has,
//! and who has gone is let go of. Nothing is read here.
//!
//! Invariant: no more wait than there is room for. Whoever comes then takes the room of a silent one, of the user that has the most
//! of them: who speaks at once is soon gone from here.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{FRAME_READ_TIMEOUT_MS, MAX_SILENT_CONNECTIONS, MIN_MAX_FRAME_BYTES};
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, WireError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};

use super::Fleet;
use super::door::Vacancy;
use crate::os;
use crate::server::door::refuse;

const PATIENCE: Duration = Duration::from_millis(FRAME_READ_TIMEOUT_MS);

/// Of the descriptors of the process, so many parts are for something else.
const PARTS: u64 = 8;

struct Waiting {
    stream: UnixStream,
    uid: u32,
    until: Instant,
    has_spoken: bool,
}

/// See the module. The oldest first.
pub(super) struct Lobby {
    waiting: Vec<Waiting>,
    most: usize,
}

impl Lobby {
    pub(super) fn new() -> Self {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        let most = (descriptors / PARTS).clamp(1, MAX_SILENT_CONNECTIONS as u64) as usize;
        Self { waiting: Vec::new(), most }
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.most || self.waiting.iter().any(|one| !one.has_spoken)
    }

    pub(super) fn add(&mut self, stream: UnixStream, uid: u32) {
        if self.waiting.len() >= self.most {
            let most = self.most as u64;
            match self.longest_silent() {
                Some(at) => {
                    let one = self.waiting.remove(at);
                    refuse(&one.stream, "maxConnections", most, most + 1);
                    os::let_go_of_rest(&one.stream);
                }
                None => {
                    refuse(&stream, "maxConnections", most, most + 1);
                    return os::let_go_of_rest(&stream);
                }
            }
        }
        self.waiting.push(Waiting { stream, uid, until: Instant::now() + PATIENCE, has_spoken: false });
    }

    /// The oldest silent one of the user that has the most of them.
    fn longest_silent(&self) -> Option<usize> {
        let mut counts = HashMap::<u32, usize>::new();
        let silent = || self.waiting.iter().enumerate().filter(|(_, one)| !one.has_spoken);
        silent().for_each(|(_, one)| *counts.entry(one.uid).or_default() += 1);
        let (uid, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        silent().find(|(_, one)| one.uid == uid).map(|(at, _)| at)
    }

    /// Sees who has spoken, who has gone and whose time is over.
    pub(super) fn look(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        let mut fds: Vec<_> =
            self.waiting.iter().map(|one| PollFd::new(one.stream.as_fd(), PollFlags::POLLIN | hung_up())).collect();
        let _ = poll(&mut fds, PollTimeout::ZERO);
        let seen: Vec<_> = fds.iter().map(|fd| (is_hung_up(fd), fd.any().unwrap_or(true))).collect();
        drop(fds);
        let mut seen = seen.into_iter();
        self.waiting.retain_mut(|one| {
            let (gone, speaks) = seen.next().unwrap_or_default();
            one.has_spoken |= speaks;
            let over = !one.has_spoken && now >= one.until;
            if over {
                tell_that_it_is_over(&one.stream);
            }
            if gone || over {
                os::let_go_of_rest(&one.stream);
            }
            !gone && !over
        });
    }

    /// One that has spoken. It waits no more.
    pub(super) fn next(&mut self) -> Option<UnixStream> {
        let at = self.waiting.iter().position(|one| one.has_spoken)?;
        Some(self.waiting.remove(at).stream)
    }

    /// What tells that there is something to look at.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.waiting.iter().map(|one| {
            let speaks = if one.has_spoken { PollFlags::empty() } else { PollFlags::POLLIN };
            PollFd::new(one.stream.as_fd(), speaks | hung_up())
        })
    }

    /// Until there is something to look at that tells nobody.
    pub(super) fn timeout(&self, now: Instant) -> PollTimeout {
        let until = self.waiting.iter().filter(|one| !one.has_spoken).map(|one| one.until).min();
        until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::NONE)
        })
    }
}

impl Fleet {
    /// Tells somebody that there is no worker for it.
    pub(super) fn turn_away(&self, stream: &UnixStream, vacancy: &Vacancy) {
        match vacancy {
            Vacancy::NoneCanBeMade => {
                let there = self.lock().serving.len() as u64;
                log::debug!("a connection is refused: no worker can be made for it");
                refuse(stream, "workers", there, there + 1);
            }
            _ => {
                let most = self.plan.workers() as u64;
                log::warn!("a connection is refused: {most} workers have one each, as many as may be");
                refuse(stream, "maxWorkers", most, most + 1);
            }
        }
        os::let_go_of_rest(stream);
    }

    /// Somebody whose worker was lost, and who still waits; and whether that one has greeted it.
    pub(super) fn next_left(&self) -> Option<(Arc<UnixStream>, bool)> {
        loop {
            let (stream, greeted) = self.lock().left.pop_front()?;
            if !has_gone(&stream) {
                return Some((stream, greeted));
            }
            os::let_go_of_rest(&stream);
        }
    }
}

/// The end of what a peer sends, which is the end of its connection.
fn hung_up() -> PollFlags {
    PollFlags::from_bits_retain(libc::POLLRDHUP)
}

fn is_hung_up(fd: &PollFd<'_>) -> bool {
    // what has no name here is what was asked for beside what has
    fd.revents().is_none_or(|flags| flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | hung_up()))
}

fn has_gone(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), hung_up())];
    let _ = poll(&mut fds, PollTimeout::ZERO);
    is_hung_up(&fds[0])
}

fn tell_that_it_is_over(stream: &UnixStream) {
    let why = format!("hello took longer than {FRAME_READ_TIMEOUT_MS} ms to arrive");
    let error = SidecarMessage::Error(WireError::new(ErrorCode::ProtocolError, why));
    let mut frame = Vec::new();
    if error.encode(RequestId::CONNECTION, MIN_MAX_FRAME_BYTES as usize, &mut frame).is_ok()
        && stream.set_nonblocking(true).is_ok()
    {
        let mut stream = stream;
        let _ = stream.write(&frame);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn lobby(most: usize) -> Lobby {
        Lobby { waiting: Vec::new(), most }
    }

    fn comes(lobby: &mut Lobby, uid: u32) -> UnixStream {
        let (client, waiting) = UnixStream::pair().unwrap();
        lobby.add(waiting, uid);
        client
    }

    fn is_closed(mut client: UnixStream) -> bool {
        client.set_nonblocking(true).unwrap();
        client.read_to_end(&mut Vec::new()).is_ok()
    }

    #[test]
    fn whoever_speaks_gets_a_worker_and_neither_who_is_silent_nor_who_has_gone() {
        let (mut lobby, now) = (lobby(8), Instant::now());
        let silent = comes(&mut lobby, 1);
        let mut speaks = comes(&mut lobby, 1);
        drop(comes(&mut lobby, 1));
        let mut says_and_goes = comes(&mut lobby, 1);
        says_and_goes.write_all(b"x").unwrap();
        drop(says_and_goes);
        let ends = comes(&mut lobby, 1);
        ends.shutdown(std::net::Shutdown::Write).unwrap();
        lobby.look(now);
        assert!(lobby.next().is_none());
        speaks.write_all(b"x").unwrap();
        lobby.look(now);
        let mut given = lobby.next().unwrap();
        assert_eq!((given.read(&mut [0; 8]).unwrap(), lobby.waiting.len()), (1, 1));
        lobby.look(now + PATIENCE / 2);
        assert!(lobby.next().is_none() && lobby.waiting.len() == 1);
        lobby.look(now + 2 * PATIENCE);
        assert!(lobby.waiting.is_empty() && is_closed(silent));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_nobody_takes_the_room_of_another_user() {
        let mut lobby = lobby(4);
        let other = comes(&mut lobby, 2);
        let mut crowd: Vec<_> = (0..20).map(|_| comes(&mut lobby, 1)).collect();
        assert_eq!(lobby.waiting.len(), 4);
        crowd.drain(..17).for_each(|client| assert!(is_closed(client)));
        for client in crowd.iter().chain([&other]) {
            let mut client = client;
            client.write_all(b"x").unwrap();
        }
        lobby.look(Instant::now());
        assert!(!lobby.has_room());
        assert!(is_closed(comes(&mut lobby, 1)), "those that have spoken stay");
        assert_eq!(std::iter::from_fn(|| lobby.next()).count(), 4);
    }
}
