//! The reading half: one epoll over the listener, the signals and all connections. Whoever holds the poller polls; it is one
//! object, so only one thread at a time does.
//!
//! **The rule.** That thread does nothing whose cost a peer chooses, since everybody waits for it. All that it does:
//! - it waits, and takes one new connection ([`door`](super::door)), which stands in no books before it has said hello;
//! - it reads a bounded part of what a peer has sent, and cuts it into frames ([`peer`](super::peer)); of those that send much, one at
//!   a look has its turn, and while somebody asks for something a newcomer waits for some looks;
//! - it decodes frames that are no work, which are small, and answers hello, ping, stats and whatever is refused; a cancellation,
//!   a kill and a `shutdown` it notes in the books;
//! - it gives work to the hub, still encoded;
//! - it runs errands of the watchdog, which are answers of a bounded size;
//! - it writes what waits for a connection, as far as the socket takes it.
//!
//! A peer may send no descriptors along: to close them would take as long as they want.
//!
//! What takes longer is the work of a worker, or a chore of the housekeeper: lists and metrics, the end of a connection and of
//! an execution, and freeing whatever a peer has made large. How long it has been busy is seen by the watchdog: see `busy`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::RequestId;
use nexus_protocol::limits::{
    FRAME_READ_TIMEOUT_MS, LAST_WORDS_MS, LOOKS_PER_ACCEPT, MAX_CONNECTIONS, OPERATOR_CONNECTIONS, UNREAD_TIMEOUT_MS,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Mode;
use super::busy::Busy;
use super::connection::{Connection, Flushed};
use super::door::{self, Door, Place, Source, Whose};
use super::hub::SessionId;
use super::listen::refuse_descriptors;
use super::memory::Memory;
use super::peer::{Peer, TurnEnd};
use super::session::{Action, Session, protocol_error};
use crate::budget::Charge;
use crate::faults::{self, Point};
use crate::os;

const LISTENER: u64 = 0;
const WAKE: u64 = 2;
const FIRST_SESSION: u64 = 16;

/// Events taken at once.
const BATCH: usize = 64;
/// Time between two looks at connections that keep us waiting.
const SWEEP: Duration = Duration::from_millis(250);
/// While traffic is hot, look again this long before sleeping: waking a sleeping thread costs more than a small handler.
const SPIN: Duration = Duration::from_micros(40);
/// Traffic is hot for this long after a frame.
const HOT: Duration = Duration::from_millis(1);

/// What one look found.
#[derive(Debug)]
pub enum Event {
    Frame(Arc<Connection>, Action),
    Closed(SessionId),
    /// Another process has greeted it: it is in the books from now on.
    Greeted(Arc<Connection>),
    /// What a frame took that was refused, to be freed elsewhere. It counts until then.
    Freed(Vec<u8>, Charge),
}

/// What holds for all connections.
#[derive(Clone, Debug)]
pub struct Rules {
    /// A parent is trusted to be alive, however long it stands still; anybody else has a time for hello, for the rest of a
    /// frame, and for reading answers.
    pub mode: Mode,
    pub max_frame_bytes: usize,
    /// Look for a moment before sleeping.
    pub spin: bool,
    /// Users whose connections are taken, beside those of our own.
    pub allow_uids: Vec<u32>,
    pub memory: Memory,
}

/// See the module.
pub struct Poller {
    epoll: Epoll,
    door: Door,
    wake: UnixStream,
    peers: HashMap<u64, Peer>,
    /// Those that keep us waiting: their deadlines are looked at.
    waited_for: HashSet<u64>,
    /// Those that were read from since it was last asked.
    read: Vec<SessionId>,
    /// Those that have their turns one after the other, one at a look: they have something left, or sent much.
    left: VecDeque<u64>,
    /// Looks so far.
    looks: u64,
    /// Those since somebody has knocked who was not let in.
    looks_at_door: u32,
    /// Connections in places for looking after the sidecar, the oldest first.
    operators: VecDeque<SessionId>,
    /// Peers that are gone and not freed yet.
    gone: Vec<Peer>,
    last_sweep: Instant,
    next_session: u64,
    last_frame: Instant,
    rules: Rules,
    busy: Arc<Busy>,
}

impl Poller {
    /// `wake`: readable when the poller should return although nothing happened.
    pub fn new(rules: Rules, wake: UnixStream) -> io::Result<Self> {
        wake.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            door: Door::new(&rules.allow_uids),
            wake,
            peers: HashMap::new(),
            waited_for: HashSet::new(),
            read: Vec::new(),
            left: VecDeque::new(),
            looks: 0,
            looks_at_door: 0,
            operators: VecDeque::new(),
            gone: Vec::new(),
            last_sweep: Instant::now(),
            next_session: FIRST_SESSION,
            last_frame: Instant::now(),
            rules,
            busy: Arc::new(Busy::new()),
        })
    }

    /// Whether whoever has the poller is at work.
    pub fn busy(&self) -> &Arc<Busy> {
        &self.busy
    }

    pub fn listen(&mut self, source: Source) -> io::Result<()> {
        if let Source::Listener(listener) = &source {
            listener.set_nonblocking(true)?;
        }
        self.epoll.add(&source, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        self.door.gate.open(source);
        Ok(())
    }

    /// Takes no more connections.
    pub fn stop_listening(&mut self) {
        if let Some(source) = self.door.gate.take_source() {
            let _ = self.epoll.delete(&source);
        }
    }

    /// Adds the connection of a parent.
    pub fn adopt(&mut self, stream: UnixStream) -> io::Result<Arc<Connection>> {
        let place = self.door.places.of_parent();
        refuse_descriptors(stream.as_fd());
        self.add(stream, place, Whose::Parent)
    }

    fn add(&mut self, stream: UnixStream, place: Place, whose: Whose) -> io::Result<Arc<Connection>> {
        let token = self.next_session;
        self.next_session += 1;
        let Rules { max_frame_bytes, memory, .. } = &self.rules;
        let mark = self.door.gate.source().map(|source| source.mark_of(whose)).unwrap_or_default();
        let connection = Connection::admitted(SessionId(token), stream, *max_frame_bytes, place, memory, mark)?;
        let connection = Arc::new(connection);
        let new = if matches!(whose, Whose::Greeted(_)) { Peer::greeted } else { Peer::new };
        let peer = new(connection.clone(), *max_frame_bytes, Instant::now());
        if let Err(e) = self.epoll.add(&*connection, EpollEvent::new(peer.interest, token)) {
            // somebody else may have it as well
            let _ = connection.stream().shutdown(std::net::Shutdown::Both);
            return Err(e.into());
        }
        self.peers.insert(token, peer);
        self.wait_for(token);
        Ok(connection)
    }

    /// Its deadlines are looked at from now on.
    fn wait_for(&mut self, token: u64) {
        self.waited_for.insert(token);
    }

    /// Writes what waits for a connection and asks epoll for what it needs next. False: it is gone.
    pub fn settle(&mut self, session: SessionId) -> bool {
        let Some(peer) = self.peers.get_mut(&session.0) else { return false };
        let flushed = peer.connection.flush();
        let dismissed = peer.dismissed_until.is_some();
        if flushed == Flushed::Broken || dismissed && flushed == Flushed::All {
            self.close(session);
            return false;
        }
        let over = flushed == Flushed::Blocked && peer.connection.is_over();
        if over {
            let read = peer.connection.written_bytes();
            if peer.unread.is_none_or(|(before, _)| read != before) {
                peer.unread = Some((read, Instant::now()));
                self.waited_for.insert(session.0);
            }
        } else {
            peer.unread = None;
        }
        let mut interest = EpollFlags::empty();
        interest.set(EpollFlags::EPOLLIN, !over && !dismissed);
        interest.set(EpollFlags::EPOLLOUT, flushed == Flushed::Blocked);
        if interest != peer.interest {
            peer.interest = interest;
            let mut event = EpollEvent::new(interest, session.0);
            if self.epoll.modify(&*peer.connection, &mut event).is_err() {
                self.close(session);
                return false;
            }
            if peer.has_left && interest.contains(EpollFlags::EPOLLIN) {
                stand_in_line(&mut self.left, session.0, peer);
            }
        }
        true
    }

    /// The last word has been appended: nothing more is taken from the connection, and it is closed when its peer has read that
    /// word, or has had the time for it. False: it has read it already.
    pub fn dismiss(&mut self, session: SessionId) -> bool {
        let Some(peer) = self.peers.get_mut(&session.0) else { return false };
        peer.connection.finish();
        (peer.has_left, peer.incomplete_since) = (false, None);
        peer.dismissed_until = Instant::now().checked_add(Duration::from_millis(LAST_WORDS_MS));
        self.wait_for(session.0);
        self.settle(session)
    }

    /// Closes a connection, and keeps what is left of it to be freed elsewhere: see [`take_gone`](Self::take_gone).
    pub fn close(&mut self, session: SessionId) {
        if let Some(peer) = self.peers.remove(&session.0) {
            self.waited_for.remove(&session.0);
            let _ = self.epoll.delete(&*peer.connection);
            let _ = peer.connection.stream().shutdown(std::net::Shutdown::Both);
            os::let_go_of_rest(peer.connection.stream());
            if peer.connection.place().is_for_operator() {
                self.operators.retain(|operator| *operator != session);
            }
            // of whoever has not said hello there is next to nothing
            if peer.session == Session::Open {
                self.gone.push(peer);
            }
        }
    }

    /// What was read at this look is in the books.
    pub fn has_taken_in(&mut self) {
        for session in self.read.drain(..) {
            if let Some(peer) = self.peers.get_mut(&session.0) {
                peer.has_taken_in();
            }
        }
    }

    /// Peers whose connections were closed.
    pub fn take_gone(&mut self) -> Vec<Peer> {
        std::mem::take(&mut self.gone)
    }

    /// Waits for something to happen (`block`) or just looks, and appends what happened.
    pub fn poll(&mut self, block: bool, events: &mut Vec<Event>) {
        let mut ready = [EpollEvent::empty(); BATCH];
        self.busy.end();
        let n = self.wait(block && self.left.is_empty(), &mut ready);
        let now = Instant::now();
        self.looks += 1;
        self.busy.begin(now);
        if self.door.gate.reopens(now) {
            self.ask_for_listener(EpollFlags::EPOLLIN);
        }
        self.door.gate.refill();
        let mut knocked = false;
        for event in ready.iter().take(n) {
            match event.data() {
                LISTENER => knocked = true,
                WAKE => {
                    drain(&self.wake);
                }
                token => self.look_at(SessionId(token), event.events(), events),
            }
        }
        self.serve_one_left(events);
        if knocked {
            // whoever is in goes first
            self.looks_at_door += 1;
            if events.is_empty() || self.looks_at_door >= LOOKS_PER_ACCEPT {
                self.looks_at_door = 0;
                self.accept(events);
            }
        }
        if n > 0 {
            self.last_frame = now;
        }
        if !self.waited_for.is_empty() && now.saturating_duration_since(self.last_sweep) >= SWEEP {
            self.sweep(now, events);
        }
    }

    /// Ends the connections that kept us waiting for too long.
    fn sweep(&mut self, now: Instant, events: &mut Vec<Event>) {
        self.last_sweep = now;
        let mut over = Vec::new();
        let Self { peers, waited_for, .. } = self;
        waited_for.retain(|token| {
            let Some(peer) = peers.get_mut(token) else { return false };
            let is_over = |since: Instant, ms| now.saturating_duration_since(since) >= Duration::from_millis(ms);
            if let Some(until) = peer.dismissed_until {
                if now >= until {
                    over.push(SessionId(*token));
                }
                return now < until;
            }
            // a parent may stand still
            if peer.connection.place().is_of_parent() {
                return false;
            }
            if peer.incomplete_since.is_some_and(|since| is_over(since, FRAME_READ_TIMEOUT_MS)) {
                let what = if peer.session == Session::Open { "a frame" } else { "hello" };
                let error = protocol_error(format!("{what} took longer than {FRAME_READ_TIMEOUT_MS} ms to arrive"));
                events.push(Event::Frame(peer.connection.clone(), Action::Close(RequestId::CONNECTION, error)));
                return false;
            }
            if let Some((before, since)) = peer.unread {
                let read = peer.connection.written_bytes();
                if read != before {
                    peer.unread = Some((read, now));
                } else if is_over(since, UNREAD_TIMEOUT_MS) {
                    log::warn!("session {token} does not read its answers; it is closed");
                    over.push(SessionId(*token));
                    return false;
                }
            }
            peer.incomplete_since.is_some() || peer.unread.is_some()
        });
        for session in over {
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
        if self.rules.spin {
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
        // rounded up: a wait that ends too early would be followed by many short ones
        let until_open = |until: Instant| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let to_open = self.door.gate.closed_until().map(until_open);
        let to_sweep = (!self.waited_for.is_empty()).then_some(SWEEP);
        match to_open.into_iter().chain(to_sweep).min() {
            None => look(EpollTimeout::NONE, ready),
            Some(time) => look(EpollTimeout::try_from(time).unwrap_or(EpollTimeout::ZERO), ready),
        }
    }

    fn ask_for_listener(&self, interest: EpollFlags) {
        if let Some(source) = self.door.gate.source()
            && let Err(e) = self.epoll.modify(source, &mut EpollEvent::new(interest, LISTENER))
        {
            log::error!("cannot change what is waited for at the socket: {e}");
        }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        if let Some((stream, whose, place)) = self.door.accept() {
            let for_operator = place.is_for_operator();
            if for_operator && self.operators.len() >= OPERATOR_CONNECTIONS {
                self.make_way(events);
            }
            match self.add(stream, place, whose) {
                Ok(connection) => {
                    if for_operator {
                        self.operators.push_back(connection.session);
                    }
                    if matches!(whose, Whose::Greeted(_)) {
                        events.push(Event::Greeted(connection));
                    }
                }
                Err(e) => log::error!("cannot take a connection: {e}"),
            }
        }
        if self.door.gate.closed_until().is_some() {
            self.ask_for_listener(EpollFlags::empty());
        }
    }

    /// The connection that has been longest in a place for looking after the sidecar makes room.
    fn make_way(&mut self, events: &mut Vec<Event>) {
        let Some(oldest) = self.operators.front().copied() else { return };
        if let Some(peer) = self.peers.get(&oldest.0) {
            peer.connection.flush();
            let most = MAX_CONNECTIONS as u64;
            door::refuse(peer.connection.stream(), "maxConnections", most, most + 1);
        }
        self.close(oldest);
        events.push(Event::Closed(oldest));
    }

    /// Epoll has told of a connection: it has its turn, or stands in line for it when its last one was long.
    fn look_at(&mut self, session: SessionId, flags: EpollFlags, events: &mut Vec<Event>) {
        let Some(peer) = self.peers.get_mut(&session.0) else { return };
        if peer.is_heavy && flags.contains(EpollFlags::EPOLLIN) && peer.dismissed_until.is_none() {
            peer.has_left = true;
            stand_in_line(&mut self.left, session.0, peer);
        }
        let flags = if peer.in_line { flags & EpollFlags::EPOLLOUT } else { flags };
        self.serve(session, flags, events);
    }

    /// The first of those who stand in line has its turn, if it has not had one at this look.
    fn serve_one_left(&mut self, events: &mut Vec<Event>) {
        while let Some(token) = self.left.front().copied() {
            let peer = self.peers.get_mut(&token);
            if peer.as_ref().is_some_and(|peer| peer.last_turn == self.looks) {
                return;
            }
            self.left.pop_front();
            let Some(peer) = peer else { continue };
            peer.in_line = false;
            // not one that has to read its answers first
            if peer.has_left && peer.interest.contains(EpollFlags::EPOLLIN) {
                return self.serve(SessionId(token), EpollFlags::EPOLLIN, events);
            }
        }
    }

    fn serve(&mut self, session: SessionId, flags: EpollFlags, events: &mut Vec<Event>) {
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if flags.contains(EpollFlags::EPOLLOUT) && !self.settle(session) {
            events.push(Event::Closed(session));
            return;
        }
        let Some(peer) = self.peers.get_mut(&session.0) else { return };
        if peer.dismissed_until.is_some() {
            if flags.intersects(gone) {
                self.close(session);
                events.push(Event::Closed(session));
            }
            return;
        }
        if !flags.intersects(EpollFlags::EPOLLIN | gone) {
            return;
        }
        let before = events.len();
        peer.last_turn = self.looks;
        if peer.connection.mark.counts() {
            peer.begins_to_read();
            self.read.push(session);
        }
        let turn = peer.turn(session, events);
        peer.has_left = matches!(turn, TurnEnd::Left | TurnEnd::Amid);
        if peer.has_left {
            stand_in_line(&mut self.left, session.0, peer);
        }
        if turn == TurnEnd::Over {
            self.close(session);
            events.push(Event::Closed(session));
        } else if turn == TurnEnd::Left || peer.session == Session::Open && peer.is_at_boundary() {
            peer.incomplete_since = None;
        } else if peer.incomplete_since.is_none() || events.len() > before && peer.session == Session::Open {
            // what is there now is the beginning of another frame
            peer.incomplete_since = Some(Instant::now());
            self.wait_for(session.0);
        }
    }
}

fn stand_in_line(line: &mut VecDeque<u64>, token: u64, peer: &mut Peer) {
    if !std::mem::replace(&mut peer.in_line, true) {
        line.push_back(token);
    }
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

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
