//! The reading half: one epoll over the listener, the signals and all connections. Whoever holds the poller polls; it is one
//! object, so only one thread at a time does.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{FRAME_READ_TIMEOUT_MS, MAX_CONNECTIONS, MAX_UNREAD_BYTES, UNREAD_TIMEOUT_MS};
use nexus_protocol::{FrameDecoder, FrameError, RequestId};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::connection::{Connection, Flushed};
use super::hub::SessionId;
use super::session::{Action, Session, protocol_error};
use crate::faults::{self, Point};

const LISTENER: u64 = 0;
const WAKE: u64 = 2;
const FIRST_SESSION: u64 = 16;

/// Events taken at once.
const BATCH: usize = 64;
/// Read from one connection before the others get their turn.
const READ_TURN_BYTES: usize = 1 << 20;
/// Taken of one connection before the others get their turn: a hundred kilobytes may be a thousand requests.
const TURN_FRAMES: usize = 32;
/// Time between two looks at connections that keep us waiting.
const SWEEP: Duration = Duration::from_millis(250);
/// While traffic is hot, look again this long before sleeping: waking a sleeping thread costs more than a small handler.
const SPIN: Duration = Duration::from_micros(40);
/// Traffic is hot for this long after a frame.
const HOT: Duration = Duration::from_millis(1);

struct Peer {
    connection: Arc<Connection>,
    decoder: FrameDecoder,
    session: Session,
    /// What epoll is asked for.
    interest: EpollFlags,
    /// Whole frames were left in the decoder when its turn was over.
    has_left: bool,
    /// Since when hello, or the rest of a frame, is waited for.
    incomplete_since: Option<Instant>,
    /// With too much unread: how much, and since when it has not become less.
    unread: Option<(usize, Instant)>,
}

/// What one look found.
#[derive(Debug)]
pub enum Event {
    Opened(Arc<Connection>),
    Frame(Arc<Connection>, Action),
    Closed(SessionId),
}

/// See the module.
pub struct Poller {
    epoll: Epoll,
    listener: Option<UnixListener>,
    wake: UnixStream,
    peers: HashMap<u64, Peer>,
    /// Those that keep us waiting: their deadlines are looked at.
    waited_for: HashSet<u64>,
    /// Those that have their next turn without a word from epoll, as they have frames left.
    left: Vec<u64>,
    last_sweep: Instant,
    next_session: u64,
    max_frame_bytes: usize,
    last_frame: Instant,
    spin: bool,
    allow_uids: Vec<u32>,
    /// Given up for a moment when no descriptor is left, so that a connection can be taken and closed.
    spare: Option<File>,
}

impl Poller {
    /// `wake`: readable when the poller should return although nothing happened. `allow_uids`: users whose connections are
    /// taken, beside those of our own.
    pub fn new(max_frame_bytes: usize, wake: UnixStream, spin: bool, allow_uids: Vec<u32>) -> io::Result<Self> {
        wake.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            listener: None,
            wake,
            peers: HashMap::new(),
            waited_for: HashSet::new(),
            left: Vec::new(),
            last_sweep: Instant::now(),
            next_session: FIRST_SESSION,
            max_frame_bytes,
            last_frame: Instant::now(),
            spin,
            allow_uids,
            spare: File::open("/dev/null").ok(),
        })
    }

    pub fn listen(&mut self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Takes no more connections.
    pub fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = self.epoll.delete(&listener);
        }
    }

    pub fn add(&mut self, stream: UnixStream) -> io::Result<Arc<Connection>> {
        let token = self.next_session;
        self.next_session += 1;
        let connection = Arc::new(Connection::new(SessionId(token), stream, self.max_frame_bytes)?);
        let interest = EpollFlags::EPOLLIN;
        self.epoll.add(&*connection, EpollEvent::new(interest, token))?;
        let decoder = FrameDecoder::new(self.max_frame_bytes);
        let peer = Peer {
            connection: connection.clone(),
            decoder,
            session: Session::Handshaking,
            interest,
            has_left: false,
            incomplete_since: Some(Instant::now()),
            unread: None,
        };
        self.peers.insert(token, peer);
        self.waited_for.insert(token);
        Ok(connection)
    }

    /// Writes what waits for a connection and asks epoll for what it needs next. False: it is gone.
    pub fn settle(&mut self, session: SessionId) -> bool {
        let Some(peer) = self.peers.get_mut(&session.0) else { return false };
        let flushed = peer.connection.flush();
        let mut interest = EpollFlags::EPOLLIN;
        let unread = if flushed == Flushed::Blocked { peer.connection.pending_bytes() } else { 0 };
        if unread > MAX_UNREAD_BYTES {
            if peer.unread.is_none_or(|(before, _)| unread != before) {
                peer.unread = Some((unread, Instant::now()));
                self.waited_for.insert(session.0);
            }
        } else {
            peer.unread = None;
        }
        match flushed {
            Flushed::Broken => {
                self.close(session);
                return false;
            }
            Flushed::Blocked => {
                interest |= EpollFlags::EPOLLOUT;
                if unread > MAX_UNREAD_BYTES {
                    interest = EpollFlags::EPOLLOUT;
                }
            }
            Flushed::All => {}
        }
        if interest != peer.interest {
            peer.interest = interest;
            let mut event = EpollEvent::new(interest, session.0);
            if self.epoll.modify(&*peer.connection, &mut event).is_err() {
                self.close(session);
                return false;
            }
            if peer.has_left && interest.contains(EpollFlags::EPOLLIN) && !self.left.contains(&session.0) {
                self.left.push(session.0);
            }
        }
        true
    }

    pub fn close(&mut self, session: SessionId) {
        if let Some(peer) = self.peers.remove(&session.0) {
            let _ = self.epoll.delete(&*peer.connection);
            let _ = peer.connection.stream().shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits for something to happen (`block`) or just looks, and appends what happened.
    pub fn poll(&mut self, block: bool, events: &mut Vec<Event>) {
        let mut ready = [EpollEvent::empty(); BATCH];
        let left = std::mem::take(&mut self.left);
        let n = self.wait(block && left.is_empty(), &mut ready);
        for event in ready.iter().take(n) {
            match event.data() {
                LISTENER => self.accept(events),
                WAKE => {
                    drain(&self.wake);
                }
                token => self.serve(SessionId(token), event.events(), events),
            }
        }
        for token in left {
            // not one that epoll told of, which has had its turn, nor one that has to read its answers first
            let is_read = |peer: &Peer| peer.has_left && peer.interest.contains(EpollFlags::EPOLLIN);
            if !self.left.contains(&token) && self.peers.get(&token).is_some_and(is_read) {
                self.serve(SessionId(token), EpollFlags::EPOLLIN, events);
            }
        }
        if n > 0 {
            self.last_frame = Instant::now();
        }
        if !self.waited_for.is_empty() && self.last_sweep.elapsed() >= SWEEP {
            self.sweep(Instant::now(), events);
        }
    }

    /// Ends the connections that kept us waiting for too long.
    fn sweep(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.last_sweep = now;
        let mut stuck = Vec::new();
        let Self { peers, waited_for, .. } = self;
        waited_for.retain(|token| {
            let Some(peer) = peers.get_mut(token) else { return false };
            let over = |since: Instant, ms| now.saturating_duration_since(since) >= Duration::from_millis(ms);
            if peer.incomplete_since.is_some_and(|since| over(since, FRAME_READ_TIMEOUT_MS)) {
                let what = if peer.session == Session::Open { "a frame" } else { "hello" };
                let error = protocol_error(format!("{what} took longer than {FRAME_READ_TIMEOUT_MS} ms to arrive"));
                events.push(Event::Frame(peer.connection.clone(), Action::Close(RequestId::CONNECTION, error)));
                return false;
            }
            if let Some((before, since)) = peer.unread {
                let unread = peer.connection.pending_bytes();
                if unread < before {
                    peer.unread = Some((unread, now));
                } else if over(since, UNREAD_TIMEOUT_MS) {
                    stuck.push(SessionId(*token));
                    return false;
                }
            }
            peer.incomplete_since.is_some() || peer.unread.is_some()
        });
        for session in stuck {
            log::warn!("session {} does not read its answers; it is closed", session.0);
            self.close(session);
            events.push(Event::Closed(session));
        }
    }

    fn wait(&self, block: bool, ready: &mut [EpollEvent]) -> usize {
        let look = |timeout: EpollTimeout, ready: &mut [EpollEvent]| {
            faults::io(Point::Wait).map_or(0, |()| self.epoll.wait(ready, timeout).unwrap_or(0))
        };
        if !block {
            return look(EpollTimeout::ZERO, ready);
        }
        if self.spin {
            let now = Instant::now();
            if now.saturating_duration_since(self.last_frame) < HOT {
                while now.elapsed() < SPIN {
                    let n = look(EpollTimeout::ZERO, ready);
                    if n > 0 {
                        return n;
                    }
                    std::hint::spin_loop();
                }
            }
        }
        if self.waited_for.is_empty() {
            return look(EpollTimeout::NONE, ready);
        }
        look(EpollTimeout::try_from(SWEEP).unwrap_or(EpollTimeout::NONE), ready)
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        loop {
            let Some(listener) = &self.listener else { return };
            match faults::io(Point::Accept).and_then(|()| listener.accept()) {
                Ok((stream, _)) => self.admit(stream, events),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // left in the queue, it would wake us again and again
                Err(e) if self.spare.take().is_some() => {
                    log::error!("a connection is refused: {e}{}", advice(&e));
                    drop(listener.accept());
                    self.spare = File::open("/dev/null").ok();
                }
                Err(e) => {
                    log::error!("cannot accept a connection: {e}{}", advice(&e));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: UnixStream, events: &mut Vec<Event>) {
        if self.peers.len() >= MAX_CONNECTIONS {
            log::warn!("a connection is refused: {MAX_CONNECTIONS} are open");
            return;
        }
        let peer = match getsockopt(&stream, sockopt::PeerCredentials) {
            Ok(peer) => peer,
            Err(e) => {
                log::error!("cannot read a peer's credentials: {e}");
                return;
            }
        };
        if peer.uid() != geteuid().as_raw() && !self.allow_uids.contains(&peer.uid()) {
            log::warn!(
                "a connection of user {} (process {}) is refused: allowUids does not list that user",
                peer.uid(),
                peer.pid()
            );
            return;
        }
        match self.add(stream) {
            Ok(connection) => events.push(Event::Opened(connection)),
            Err(e) => log::error!("cannot take a connection: {e}"),
        }
    }

    fn serve(&mut self, session: SessionId, flags: EpollFlags, events: &mut Vec<Event>) {
        if flags.contains(EpollFlags::EPOLLOUT) && !self.settle(session) {
            events.push(Event::Closed(session));
            return;
        }
        let Some(peer) = self.peers.get_mut(&session.0) else { return };
        if !flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        let before = events.len();
        let turn = peer.turn(session, events);
        peer.has_left = turn == Turn::Left;
        if turn == Turn::Over {
            self.close(session);
            events.push(Event::Closed(session));
        } else if peer.has_left {
            peer.incomplete_since = None;
            self.left.push(session.0);
        } else if peer.session == Session::Open && peer.decoder.is_at_boundary() {
            peer.incomplete_since = None;
        } else if peer.incomplete_since.is_none() || events.len() > before && peer.session == Session::Open {
            // what is there now is the beginning of another frame
            peer.incomplete_since = Some(Instant::now());
            self.waited_for.insert(session.0);
        }
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// With nothing left, or with bytes in the socket that epoll tells of.
    Done,
    /// With whole frames left.
    Left,
    /// With the connection.
    Over,
}

impl Peer {
    /// Takes the frames that were left, then reads and takes more.
    fn turn(&mut self, session: SessionId, events: &mut Vec<Event>) -> Turn {
        let (mut frames, mut total) = (0, 0);
        loop {
            if let Some(end) = self.take_frames(&mut frames, events) {
                return end;
            }
            if total >= READ_TURN_BYTES {
                return Turn::Done;
            }
            let spare = self.decoder.spare();
            let room = spare.len();
            let mut read = |room| self.connection.stream().read(spare.get_mut(..room).unwrap_or_default());
            let got = match faults::transfer(Point::Read, room).and_then(&mut read) {
                Ok(0) => {
                    if !self.decoder.is_at_boundary() {
                        log::debug!("session {} ended within a frame", session.0);
                    }
                    return Turn::Over;
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Turn::Done,
                Err(_) => return Turn::Over,
            };
            self.decoder.advance(got);
            // a socket that was emptied need not be asked again; epoll tells of more
            total = if got < room { READ_TURN_BYTES } else { total + got };
        }
    }

    /// `taken`: frames of this turn. `None`: there is no whole frame any more.
    fn take_frames(&mut self, taken: &mut usize, events: &mut Vec<Event>) -> Option<Turn> {
        loop {
            if *taken == TURN_FRAMES {
                return Some(Turn::Left);
            }
            let action = match self.decoder.next_owned() {
                Ok(Some(frame)) => self.session.on_frame(&self.connection, frame, Instant::now()),
                Ok(None) => return None,
                Err(e) => framing_error(&e),
            };
            *taken += 1;
            let closes = matches!(action, Action::Close(..));
            events.push(Event::Frame(self.connection.clone(), action));
            if closes {
                // nothing more can be read; whoever handles the event ends the connection
                return Some(Turn::Done);
            }
        }
    }
}

fn framing_error(error: &FrameError) -> Action {
    Action::Close(RequestId::CONNECTION, protocol_error(error.to_string()))
}

/// Whether anything was there to read.
fn drain(stream: &UnixStream) -> bool {
    let mut some = false;
    let mut bytes = [0; 64];
    let mut stream = stream;
    while matches!(stream.read(&mut bytes), Ok(n) if n > 0) {
        some = true;
    }
    some
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
    use std::io::Write;

    use nexus_protocol::message::{ClientHello, ClientMessage};
    use nexus_protocol::version::{MAGIC, VersionRange};

    use super::*;

    const MAX_FRAME: usize = 1 << 20;

    fn frames(pings: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let VersionRange { min, max } = VersionRange::SUPPORTED;
        let hello = ClientHello { magic: MAGIC, min, max, client: "a test" };
        ClientMessage::Hello(hello).encode(RequestId::CONNECTION, MAX_FRAME, &mut bytes).unwrap();
        for id in 1..=pings {
            ClientMessage::Ping.encode(RequestId(id), MAX_FRAME, &mut bytes).unwrap();
        }
        bytes
    }

    /// Pings of one session among events.
    fn pings_of(session: SessionId, events: &[Event]) -> usize {
        let is_one = |event: &&Event| matches!(event, Event::Frame(c, Action::Pong(_)) if c.session == session);
        events.iter().filter(is_one).count()
    }

    #[test]
    fn a_thousand_small_requests_of_one_connection_hold_nobody_up() {
        let (wake, _waker) = UnixStream::pair().unwrap();
        let mut poller = Poller::new(MAX_FRAME, wake, false, Vec::new()).unwrap();
        let mut connect = |pings| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&frames(pings)).unwrap();
            (ours, poller.add(theirs).unwrap().session)
        };
        let (mut greedy, of_greed) = connect(1000);
        let (mut modest, of_modesty) = connect(1);
        let mut seen = (0, 0);
        for turn in 1.. {
            let mut events = Vec::new();
            // it does not sleep while there is something left
            poller.poll(true, &mut events);
            let taken = (pings_of(of_greed, &events), pings_of(of_modesty, &events));
            assert!(taken.0 <= TURN_FRAMES && events.len() <= 2 * TURN_FRAMES, "turn {turn}");
            seen = (seen.0 + taken.0, seen.1 + taken.1);
            // each turn of the one is a turn of the other
            assert_eq!(seen.1, turn.min(20), "turn {turn}");
            if seen == (1000, 20) {
                break;
            }
            if turn < 20 {
                let mut bytes = Vec::new();
                ClientMessage::Ping.encode(RequestId(7), MAX_FRAME, &mut bytes).unwrap();
                modest.write_all(&bytes).unwrap();
            }
        }
        // the end of the stream comes behind all that was sent
        greedy.write_all(&frames(40)[frames(0).len()..]).unwrap();
        drop(greedy);
        let mut events = Vec::new();
        while !events.iter().any(|event| matches!(event, Event::Closed(session) if *session == of_greed)) {
            poller.poll(true, &mut events);
        }
        assert_eq!(pings_of(of_greed, &events), 40);
    }
}
