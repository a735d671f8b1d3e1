//! Who may connect: a listener, and the places that there are.
//!
//! Each user has an equal part of the places, so that none can take those of another; a place is taken until its connection's
//! descriptor is closed. When the part of the sidecar's own user is taken, that user (and root) still finds one of a few places
//! that are good for looking after the sidecar and not for work: see [`Place::is_for_operator`]. Everybody else is told that it is
//! overloaded, and let go.
//!
//! Invariant: one look takes one connection, however many come, and when the process has no descriptor left it
//! does not look again for a moment, since a full table of descriptors is an error even while nobody waits.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{ACCEPT_PAUSE_MS, MAX_CONNECTIONS, MIN_MAX_FRAME_BYTES, OPERATOR_CONNECTIONS};
use nexus_protocol::{RequestId, SidecarMessage};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};
use nix::unistd::geteuid;

use super::listen::refuse_descriptors;
use super::mark::Mark;
use super::refusal::{of_resource, overloaded};
use crate::faults::{self, Point};
use crate::os;
use crate::walls::Intake;

pub const ROOT: u32 = 0;
const PAUSE: Duration = Duration::from_millis(ACCEPT_PAUSE_MS);

/// The sidecar's own user, or root.
pub fn is_own(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == ROOT
}

/// Places for connections, by user.
#[derive(Debug)]
pub struct Places {
    /// Users other than our own.
    listed: Vec<u32>,
    /// Taken ones: those of our own user, then those of each listed one.
    taken: Vec<AtomicUsize>,
    /// Connections that look after the sidecar, and a parent's.
    beside: AtomicUsize,
}

/// One of them. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Of(usize),
    Operator,
    Parent,
}

impl Places {
    /// `listed`: users that may connect, beside our own.
    pub fn new(listed: &[u32]) -> Arc<Self> {
        let mut listed: Vec<u32> = listed.iter().copied().filter(|uid| *uid != geteuid().as_raw()).collect();
        listed.sort_unstable();
        listed.dedup();
        let taken = (0..=listed.len()).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self { listed, taken, beside: AtomicUsize::new(0) })
    }

    /// The place of a parent, of which there is one.
    pub fn of_parent(self: &Arc<Self>) -> Place {
        self.beside.fetch_add(1, Ordering::Relaxed);
        Place { places: self.clone(), kind: Kind::Parent }
    }

    fn class(&self, uid: u32) -> Option<usize> {
        let at = self.listed.iter().position(|listed| *listed == uid);
        at.map(|at| at + 1).or_else(|| (uid == geteuid().as_raw()).then_some(0))
    }

    /// Whether that user may connect at all; it is logged when not.
    pub fn knows(&self, uid: u32, process: i32) -> bool {
        let known = self.class(uid).is_some();
        if !known {
            log::warn!("a connection of user {uid} (process {process}) is refused: allowUids does not list that user");
        }
        known
    }

    /// What each user may have.
    fn share(&self) -> usize {
        (MAX_CONNECTIONS - OPERATOR_CONNECTIONS) / self.taken.len().max(1)
    }

    /// A place for a user who may connect. None: there is none.
    fn take(self: &Arc<Self>, class: usize, uid: u32) -> Option<Place> {
        let (share, place) = (self.share(), |kind| Some(Place { places: self.clone(), kind }));
        let one_more = |taken: usize, most: usize| (taken < most).then_some(taken + 1);
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        if self.taken.get(class)?.fetch_update(acquire, relaxed, |taken| one_more(taken, share)).is_ok() {
            return place(Kind::Of(class));
        }
        // twice as many descriptors as places: whoever made room may not be closed yet
        let most = 2 * OPERATOR_CONNECTIONS;
        if is_own(uid) && self.beside.fetch_update(acquire, relaxed, |taken| one_more(taken, most)).is_ok() {
            return place(Kind::Operator);
        }
        None
    }
}

impl Place {
    /// For everything but work.
    pub fn is_for_operator(&self) -> bool {
        self.kind == Kind::Operator
    }

    /// Of whoever has this process for itself.
    pub fn is_of_parent(&self) -> bool {
        self.kind == Kind::Parent
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = match self.kind {
            Kind::Of(class) => self.places.taken.get(class),
            Kind::Operator | Kind::Parent => Some(&self.places.beside),
        };
        if let Some(taken) = taken {
            taken.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub enum Source {
    Listener(UnixListener),
    /// Somebody else takes them, and hands them in.
    Line(Intake),
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Line(line) => line.as_fd(),
        }
    }
}

impl Source {
    /// What is known of how it is with a connection by whoever comes after this process.
    pub fn mark_of(&self, whose: Whose) -> Mark {
        match (self, whose) {
            (Self::Line(line), Whose::Client(number) | Whose::Greeted(number)) => line.mark(number),
            _ => Mark::default(),
        }
    }

    fn take(&self) -> io::Result<(UnixStream, Whose)> {
        match self {
            Self::Listener(listener) => Ok((listener.accept()?.0, Whose::Client(0))),
            Self::Line(line) => line.take(),
        }
    }

    /// Ends a connection that is not served: whoever has handed it in has it as well, so that closing it ends nothing.
    fn end(&self, stream: &UnixStream) {
        if matches!(self, Self::Line(_)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What is handed in without room for it is lost, so that room is looked for first.
    fn has_room(&self) -> io::Result<()> {
        match self {
            Self::Listener(_) => Ok(()),
            Self::Line(line) => line.as_fd().try_clone_to_owned().map(drop),
        }
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// By whom it was handed in has a number for it.
    Client(u32),
    /// As a client's, whose hello another process has answered.
    Greeted(u32),
    /// The process that this one was made by, and for.
    Parent,
}

/// Where connections come in, whoever may be behind them.
#[derive(Debug)]
pub struct Gate {
    source: Option<Source>,
    /// Given up for a moment when no descriptor is left, so that a connection can be taken and closed.
    spare: Option<OwnedFd>,
    /// Nobody is let in before.
    closed_until: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub struct Door {
    pub gate: Gate,
    pub places: Arc<Places>,
}

impl Gate {
    /// One that nobody comes in by yet.
    pub fn closed() -> Self {
        Self { source: None, spare: spare(), closed_until: None }
    }

    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// Whoever connects to a listener may send no descriptors along.
    pub fn open(&mut self, source: Source) {
        if let Source::Listener(listener) = &source {
            refuse_descriptors(listener.as_fd());
        }
        self.source = Some(source);
    }

    pub fn take_source(&mut self) -> Option<Source> {
        self.source.take()
    }

    /// When whoever waits may be let in again.
    pub fn closed_until(&self) -> Option<Instant> {
        self.closed_until
    }

    /// True: the pause is over.
    pub fn reopens(&mut self, now: Instant) -> bool {
        self.closed_until.take_if(|until| now >= *until).is_some()
    }

    /// A descriptor was closed, perhaps.
    pub fn refill(&mut self) {
        if self.spare.is_none() {
            self.spare = spare();
        }
    }

    /// Takes one who waits. Afterwards it may be closed.
    /// `before`: passed each time, and may fail.
    pub fn accept(&mut self, before: impl FnOnce() -> io::Result<()>) -> Option<(UnixStream, Whose)> {
        let source = self.source.as_ref()?;
        let error = match before().and_then(|()| source.has_room()).and_then(|()| source.take()) {
            Ok(taken) => return Some(taken),
            Err(e) => e,
        };
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted) {
            return None;
        }
        // left in the queue it would wait for as long as there is no descriptor; nobody may be in the queue
        let waiting = self.spare.take().and_then(|spare| {
            drop(spare);
            source.take().ok()
        });
        match &waiting {
            Some((stream, _)) => {
                log::error!("a connection is refused: {error}{}", advice(&error));
                refuse(stream, "descriptors", 0, 1);
                os::let_go_of_rest(stream);
                source.end(stream);
            }
            None => log::error!("cannot accept a connection: {error}{}", advice(&error)),
        }
        let refused = waiting.is_some();
        drop(waiting);
        self.spare = spare();
        if !refused || self.spare.is_none() {
            self.closed_until = Instant::now().checked_add(PAUSE);
        }
        None
    }
}

impl Door {
    pub fn new(allow_uids: &[u32]) -> Self {
        Self { gate: Gate::closed(), places: Places::new(allow_uids) }
    }

    /// As [`Gate::accept`], with its place.
    pub fn accept(&mut self) -> Option<(UnixStream, Whose, Place)> {
        let (stream, whose) = self.gate.accept(|| faults::io(Point::Accept))?;
        match self.admit(&stream, whose) {
            Some(place) => Some((stream, whose, place)),
            None => {
                os::let_go_of_rest(&stream);
                if let Some(source) = self.gate.source() {
                    source.end(&stream);
                }
                None
            }
        }
    }

    fn admit(&self, stream: &UnixStream, whose: Whose) -> Option<Place> {
        if whose == Whose::Parent {
            return Some(self.places.of_parent());
        }
        let peer: UnixCredentials = match getsockopt(stream, sockopt::PeerCredentials) {
            Ok(peer) => peer,
            Err(e) => {
                log::error!("cannot read a peer's credentials: {e}");
                return None;
            }
        };
        if !self.places.knows(peer.uid(), peer.pid()) {
            return None;
        }
        let class = self.places.class(peer.uid())?;
        let place = self.places.take(class, peer.uid());
        if place.is_none() {
            let share = self.places.share();
            log::warn!("a connection of user {} is refused: that user has {share} open", peer.uid());
            refuse(stream, "maxConnections", share as u64, share as u64 + 1);
        }
        place
    }
}

/// A descriptor to give up. A copy of one that is there: opening a file may be forbidden.
fn spare() -> Option<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned().ok()
}

/// Tells why it is closed. The socket is new, so that there is room for it.
pub fn refuse(stream: &UnixStream, resource: &str, limit: u64, count: u64) {
    let error = overloaded(format!("there is no room for another connection: {resource} is {limit}"));
    let mut frame = Vec::new();
    let message = SidecarMessage::Error(of_resource(error, resource, limit, count));
    if message.encode(RequestId::CONNECTION, MIN_MAX_FRAME_BYTES as usize, &mut frame).is_ok()
        && stream.set_nonblocking(true).is_ok()
    {
        let mut stream = stream;
        let _ = stream.write(&frame);
    }
}

/// What the operator can do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; this process may open no more files: raise LimitNOFILE= of its unit, or ulimit -n",
        Some(libc::ENFILE) => "; the machine may open no more files: see fs.file-max",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_the_places_of_another_and_our_own_can_always_look_after_the_sidecar() {
        let own = geteuid().as_raw();
        let (a, b) = (own + 1001, own + 1002);
        let places = Places::new(&[a, b, own, a]);
        let class = |uid| places.class(uid).unwrap();
        assert_eq!(places.class(own + 1003), None);
        let share = places.share();
        assert_eq!(share, (MAX_CONNECTIONS - OPERATOR_CONNECTIONS) / 3);
        let crowd: Vec<Place> = (0..share).map(|_| places.take(class(a), a).unwrap()).collect();
        assert!(places.take(class(a), a).is_none());
        let of_b = places.take(class(b), b).unwrap();
        let of_own: Vec<Place> = (0..share).map(|_| places.take(class(own), own).unwrap()).collect();
        assert!(of_own.iter().all(|place| !place.is_for_operator()) && !of_b.is_for_operator());
        assert!(places.take(class(own), own).unwrap().is_for_operator());
        drop(crowd);
        assert!(places.take(class(a), a).is_some());
    }
}
