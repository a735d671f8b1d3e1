//! The writing half of a connection, and the requests that wait for an answer.
//!
//! Invariants: every [`Pending`] that was sent is filled exactly once, by its answer or by the end of the connection; a
//! request that nobody waits for any more is cancelled, and a suspension that nobody heard of too. A frame is written
//! whole, and nobody waits for that (see [`Wire`]). Requests that the sidecar has no room for, or that come while it does not read,
//! wait in the [`Outbox`]; a thread that is there only while some wait writes them. Large payloads go through shared memory where
//! there is some; a thread that is there only while it is set up opens it. All threads end with the connection, and nobody waits
//! for their end. Locks are taken in the order wire, requests, places of the arena.

mod pending;

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nexus_protocol::limits::FRAME_BUFFER_KEEP_BYTES;
use nexus_protocol::message::{Cancel, DisposeState, HelloLimits, OpenArena, Stats};
use nexus_protocol::{ClientMessage, RequestId};

use crate::arena::{Arena, Lease, Reply};
use crate::compiled::{Checked, CompiledParts};
use crate::error::{Error, StartError};
use crate::executions::ExecutionInfo;
use crate::listed::{Listed, Listing, Ready};
use crate::options::ClientOptions;
use crate::outbox::{Outbox, Ticket, Turn, Waiting, overloaded};
use crate::segment::Segment;
use crate::sharing::{Sharing, largest_payload};
use crate::slot::{Slot, block_on, lock};
use crate::wire::Wire;

pub(crate) use pending::{Closed, Pending, PlaceHeld};

/// What the sidecar said of itself.
#[derive(Clone, Debug)]
pub(crate) struct Greeting {
    pub(crate) build: String,
    pub(crate) engine: String,
    pub(crate) pid: u32,
    pub(crate) debug: bool,
    pub(crate) limits: HelloLimits,
}

/// An answer that is no error.
#[derive(Debug)]
pub(crate) enum Answer {
    Segment(Box<Segment>),
    /// Of many, and what those are told that have none.
    Results(Vec<Segment>, Option<Error>),
    Compiled(Box<CompiledParts>),
    Checked(Checked),
    Done(bool),
    Stats(Box<Stats>),
    Metrics(String),
    Pong,
    StateCreated(String),
    StatePatched(u64),
    StateSnapshot(u64, Vec<u8>),
    StateDisposed(bool),
    Executions(Vec<ExecutionInfo>, u64),
    Arena {
        generation: u64,
        bytes: u64,
        name: Option<String>,
    },
}

pub(crate) const UNEXPECTED: Error = Error::protocol("an answer of another kind than its request");

/// What an answer of one kind holds. Any other is the sidecar's fault.
macro_rules! answered {
    ($answer:expr, $kind:pat => $value:expr) => {
        match $answer {
            $kind => Ok($value),
            _ => Err($crate::link::UNEXPECTED),
        }
    };
}
pub(crate) use answered;

static LINKS: AtomicU64 = AtomicU64::new(1);

pub(crate) type AnswerSlot = Slot<Result<Answer, Error>>;

pub(crate) struct Link {
    /// Tells connections of this process apart.
    pub(crate) serial: u64,
    /// The end of the connection was asked for: the child's is awaited before anybody is told.
    pub(crate) draining: AtomicBool,
    pub(crate) greeting: Greeting,
    pub(crate) sharing: Sharing,
    listed: Arc<Listed>,
    max_body_bytes: usize,
    wire: Arc<Wire>,
    requests: Mutex<Requests>,
    /// Something was answered, or the end has come: the pump looks again.
    room: Condvar,
}

struct Requests {
    last_id: u32,
    /// Requests without an answer.
    waiting: HashMap<u32, Entry>,
    outbox: Outbox,
    /// Whether there is a thread that empties the outbox.
    pumping: bool,
    /// So many requests may be unanswered when one comes that takes no turn while the sidecar does not read.
    bound: usize,
    /// Filled at the end of the connection; by a number of their own.
    watchers: HashMap<u64, Arc<Slot<Error>>>,
    last_watcher: u64,
    /// Why there is no connection any more, and since when.
    closed: Option<(Error, Instant)>,
}

struct Entry {
    slot: Arc<AnswerSlot>,
    place: Place,
    /// What is its own of the shared memory until it is answered.
    lease: Option<Box<Lease>>,
    /// Held until it is answered, whatever becomes of who asked.
    at: Option<Arc<PlaceHeld>>,
    /// Of an execution whose calls are listed.
    listing: Option<Listing>,
    /// Of many executions: the results that have come in parts.
    parts: Option<Vec<Segment>>,
}

impl Entry {
    /// What is told instead of an error by who has parts already.
    fn with_parts(&mut self, result: Result<Answer, Error>) -> Result<Answer, Error> {
        let Some(mut told) = self.parts.take() else { return result };
        match result {
            Ok(Answer::Results(last, error)) => {
                told.extend(last);
                Ok(Answer::Results(told, error))
            }
            Err(error) => Ok(Answer::Results(told, Some(error))),
            other => other,
        }
    }
}

enum Place {
    /// With the sidecar, not counted.
    Urgent,
    /// With the sidecar, or about to be.
    Sent,
    /// Not counted yet: about to be in the outbox.
    Coming,
    /// In the outbox, under this ticket.
    Waiting(Ticket),
}

impl Link {
    pub(crate) fn new(stream: UnixStream, greeting: Greeting, options: &ClientOptions) -> Arc<Self> {
        let max_body_bytes = usize::try_from(greeting.limits.max_frame_bytes).unwrap_or(usize::MAX);
        let sharing = Sharing::new(options.threshold(), greeting.limits.max_arena_bytes, max_body_bytes);
        let listed = Listed::new(greeting.limits.suspension_kept_ms());
        let serial = LINKS.fetch_add(1, Ordering::Relaxed);
        let max_in_flight = usize::try_from(greeting.limits.max_in_flight).unwrap_or(usize::MAX);
        let requests = Requests {
            last_id: 0,
            waiting: HashMap::new(),
            outbox: Outbox::new(&greeting.limits, options.waiting()),
            pumping: false,
            bound: options.waiting().requests.saturating_add(max_in_flight),
            watchers: HashMap::new(),
            last_watcher: 0,
            closed: None,
        };
        Arc::new(Self {
            serial,
            draining: AtomicBool::new(false),
            greeting,
            sharing,
            listed,
            max_body_bytes,
            wire: Wire::new(stream),
            requests: Mutex::new(requests),
            room: Condvar::new(),
        })
    }

    /// What a frame carries.
    pub(crate) fn max_body_bytes(&self) -> usize {
        self.max_body_bytes
    }

    /// Sends a request. Its answer, or the end of the connection, arrives in what is returned.
    pub(crate) fn send(self: &Arc<Self>, message: ClientMessage<'_>) -> Result<Pending, Error> {
        self.send_with(message, None, None)
    }

    /// [`send`](Self::send) of an execute or a resume whose segment is to name every call that is outstanding after it.
    pub(crate) fn send_listed(self: &Arc<Self>, message: ClientMessage<'_>) -> Result<Pending, Error> {
        let listing = match &message {
            ClientMessage::Resume(resume) => self.listed.resume(resume.suspension),
            _ => Some(self.listed.begin()),
        };
        self.send_with(message, None, listing)
    }

    /// Where something is done that may be suspended. It is taken with the first request that is sent from there.
    pub(crate) fn place(self: &Arc<Self>) -> Arc<PlaceHeld> {
        let number = lock(&self.requests).outbox.places.number();
        Arc::new(PlaceHeld { link: Arc::clone(self), number })
    }

    /// [`send`](Self::send) of what belongs to a place: an execute waits until that is to be had.
    pub(crate) fn send_at(
        self: &Arc<Self>,
        message: ClientMessage<'_>,
        at: Option<&Arc<PlaceHeld>>,
    ) -> Result<Pending, Error> {
        self.send_with(message, at, None)
    }

    fn send_with(
        self: &Arc<Self>,
        mut message: ClientMessage<'_>,
        at: Option<&Arc<PlaceHeld>>,
        listing: Option<Listing>,
    ) -> Result<Pending, Error> {
        let slot = Slot::new();
        let lease = self.sharing.place(&mut message);
        let turn = match (Turn::of(&message), at) {
            (Turn::Begins, Some(at)) => Turn::BeginsAt(at.number),
            (turn, _) => turn,
        };
        let parts = matches!(message, ClientMessage::ExecuteMany(_)).then(Vec::new);
        let entry = Entry { slot: Arc::clone(&slot), place: Place::Coming, lease, at: at.cloned(), listing, parts };
        // What was not taken is dropped outside of the lock.
        let busy = self.wire.is_busy();
        // What waits for a turn is bounded by the outbox, and cancels of requests by those.
        let is_bounded = turn == Turn::Urgent && !matches!(message, ClientMessage::Cancel(Cancel::Request(_)));
        let registered = lock(&self.requests).register(entry, turn, busy, busy && is_bounded);
        let (id, waits) = registered.map_err(|(error, _)| error)?;
        let cancellable =
            matches!(message, ClientMessage::Execute(_) | ClientMessage::ExecuteMany(_) | ClientMessage::Resume(_));
        let pending = Pending { link: Arc::clone(self), id, cancellable, slot: Some(slot) };
        let sent = if waits { self.enqueue(&message, id, turn) } else { self.write(&message, id) };
        if let Err(error) = sent {
            pending.withdraw();
            return Err(error);
        }
        self.note_passed(largest_payload(&message));
        Ok(pending)
    }

    /// Takes note of a payload that went through the socket. From the first large one on there is shared memory.
    pub(crate) fn note_passed(self: &Arc<Self>, bytes: usize) {
        if !self.sharing.wants_arena(bytes) {
            return;
        }
        let link = Arc::clone(self);
        // Without a thread there is no arena, and nobody misses it.
        let _ = thread::Builder::new().name("nexus-arena".to_owned()).spawn(move || link.open_arena());
    }

    /// On a thread of its own: two requests, one after the other.
    fn open_arena(self: &Arc<Self>) {
        let ask = |request| block_on(self.send(ClientMessage::OpenArena(request))?);
        let bytes = self.greeting.limits.max_arena_bytes;
        let Ok(Answer::Arena { generation, bytes, name: Some(name) }) = ask(OpenArena::Make { bytes }) else {
            return self.sharing.opened(None);
        };
        // Another container, another user, no /dev/shm: the socket it is.
        let arena = Arena::open(&name, generation, bytes)
            .inspect_err(|error| log::debug!("no shared memory with the sidecar: {error}"))
            .ok();
        let settled = ask(OpenArena::Settle { generation, opened: arena.is_some() });
        self.sharing.opened(arena.filter(|_| settled.is_ok()));
        if self.is_closed() {
            self.sharing.close();
        }
    }

    /// Where the answer of a request may lie in shared memory.
    pub(crate) fn reply_of(&self, id: RequestId) -> Option<Reply> {
        lock(&self.requests).waiting.get(&id.0)?.lease.as_ref()?.reply()
    }

    /// Leaves a request in the outbox, encoded as it is now.
    fn enqueue(self: &Arc<Self>, message: &ClientMessage<'_>, id: u32, turn: Turn) -> Result<(), Error> {
        let mut frame = Vec::new();
        message.encode(RequestId(id), self.max_body_bytes, &mut frame).map_err(Error::request)?;
        let suspension = match message {
            ClientMessage::Resume(resume) => Some(resume.suspension.to_owned()),
            _ => None,
        };
        let always = matches!(message, ClientMessage::DisposeState(_) | ClientMessage::Shutdown);
        let mut requests = lock(&self.requests);
        if let Some((error, _)) = &requests.closed {
            return Err(error.clone());
        }
        let ticket = requests.outbox.push(Waiting { id, frame, turn, suspension }, always)?;
        if !requests.pumping {
            let link = Arc::clone(self);
            match thread::Builder::new().name("nexus-outbox".to_owned()).spawn(move || link.pump()) {
                Ok(_) => requests.pumping = true,
                Err(source) => {
                    requests.outbox.remove(ticket);
                    return Err(StartError::Spawn { path: "a thread".into(), source }.into());
                }
            }
        }
        if let Some(entry) = requests.waiting.get_mut(&id) {
            entry.place = Place::Waiting(ticket);
        }
        drop(requests);
        // There may be room again since it was looked for.
        self.room.notify_one();
        Ok(())
    }

    /// Writes what waits as soon as there is room for it, until nothing waits.
    fn pump(&self) {
        loop {
            let mut requests = lock(&self.requests);
            loop {
                let now = Instant::now();
                if requests.outbox.is_empty() || requests.outbox.is_ready(now) {
                    break;
                }
                requests = match requests.outbox.places.ask_again_in(now) {
                    Some(time) => self.room.wait_timeout(requests, time).unwrap_or_else(PoisonError::into_inner).0,
                    None => self.room.wait(requests).unwrap_or_else(PoisonError::into_inner),
                };
            }
            if requests.outbox.is_empty() {
                requests.pumping = false;
                return;
            }
            drop(requests);
            self.wire.wait_until_free();
            // A request leaves the outbox under the wire's lock only: its cancel is written behind it.
            let filled: Result<(), Infallible> = self.wire.write(|buffer| {
                let mut requests = lock(&self.requests);
                let now = Instant::now();
                while buffer.len() < FRAME_BUFFER_KEEP_BYTES
                    && let Some(Waiting { id, frame, .. }) = requests.outbox.take(now)
                {
                    if let Some(entry) = requests.waiting.get_mut(&id) {
                        entry.place = Place::Sent;
                    }
                    buffer.extend_from_slice(&frame);
                }
                Ok(())
            });
            let Ok(()) = filled;
        }
    }

    /// Takes a request back that was not written yet, as one that was cancelled.
    fn take_back(self: &Arc<Self>, id: u32) -> bool {
        let mut requests = lock(&self.requests);
        let Some(&Entry { place: Place::Waiting(ticket), .. }) = requests.waiting.get(&id) else { return false };
        let waiting = requests.outbox.remove(ticket);
        let entry = requests.waiting.remove(&id);
        drop(requests);
        self.room.notify_one();
        if let Some(suspension) = waiting.and_then(|waiting| waiting.suspension) {
            self.cancel(Cancel::Suspension(&suspension));
        }
        if let Some(entry) = entry {
            entry.slot.fill(Err(Error::Cancelled));
        }
        true
    }

    /// Cancels an execution, to hear whether there was one.
    pub(crate) fn send_cancel(self: &Arc<Self>, suspension: &str) -> Result<Pending, Error> {
        self.listed.cancelled(suspension);
        self.send(ClientMessage::Cancel(Cancel::Suspension(suspension)))
    }

    /// Cancels, without waiting for what becomes of it.
    pub(crate) fn cancel(self: &Arc<Self>, target: Cancel<'_>) {
        match target {
            Cancel::Request(id) if self.take_back(id) => return,
            Cancel::Request(_) => {}
            Cancel::Suspension(suspension) => self.listed.cancelled(suspension),
        }
        // An error means that the connection is gone, and with it the execution.
        if let Ok(pending) = self.send(ClientMessage::Cancel(target)) {
            pending.forget();
        }
    }

    /// How and when the connection has ended, if it has.
    pub(crate) fn end_of(&self) -> Option<(Error, Instant)> {
        lock(&self.requests).closed.clone()
    }

    /// Whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.requests).closed.is_some()
    }

    /// Waits for the end of the connection, which is told as the error that calls fail with.
    pub(crate) fn closed(self: &Arc<Self>) -> Closed {
        let slot = Slot::new();
        let mut requests = lock(&self.requests);
        requests.last_watcher += 1;
        let number = requests.last_watcher;
        if let Some((error, _)) = &requests.closed {
            slot.fill(error.clone());
        } else {
            requests.watchers.insert(number, Arc::clone(&slot));
        }
        drop(requests);
        Closed { link: Arc::clone(self), number, slot }
    }

    /// Takes an answer from the reader thread.
    pub(crate) fn complete(self: &Arc<Self>, id: RequestId, result: Result<Answer, Error>) {
        let queued = match &result {
            Ok(Answer::Segment(segment)) => Some(Duration::from_micros(segment.metrics.queue_us)),
            _ => None,
        };
        let entry = lock(&self.requests).remove(id.0, queued, &self.room);
        match entry {
            Some(mut entry) => {
                let result = entry.with_parts(result);
                let Entry { slot, lease, at, listing, .. } = entry;
                // What the answer brings about finds the room free.
                drop(lease);
                let Some(listing) = listing else {
                    if let Some(unheard) = slot.fill(result) {
                        self.dispose(unheard, at);
                    }
                    return;
                };
                self.hand_out(listing.answered(slot, result));
            }
            None => log::warn!("the sidecar answered request {id}, which there is not"),
        }
    }

    /// A part of an answer has come. False: there is no request that has parts.
    pub(crate) fn take_part(&self, id: RequestId, part: Vec<Segment>) -> bool {
        let mut requests = lock(&self.requests);
        let parts = requests.waiting.get_mut(&id.0).and_then(|entry| entry.parts.as_mut());
        parts.map(|parts| parts.extend(part)).is_some()
    }

    /// For an execution that is begun by another's request.
    pub(crate) fn listing(&self) -> Listing {
        self.listed.begin()
    }

    pub(crate) fn hand_out(self: &Arc<Self>, ready: impl IntoIterator<Item = Ready>) {
        for (slot, result) in ready {
            if let Some(unheard) = slot.fill(result) {
                self.dispose(unheard, None);
            }
        }
    }

    /// Ends all waiting. Called once, by the reader thread.
    pub(crate) fn close(&self, error: &Error) {
        let mut requests = lock(&self.requests);
        requests.closed = Some((error.clone(), Instant::now()));
        let waiting = std::mem::take(&mut requests.waiting);
        let watchers = std::mem::take(&mut requests.watchers);
        requests.outbox.clear();
        drop(requests);
        self.room.notify_one();
        self.wire.close();
        self.sharing.close();
        self.listed.close();
        // With the last lease the arena goes, before anybody is told.
        let told = |mut entry: Entry| {
            let end = entry.with_parts(Err(error.clone()));
            (entry.slot, end)
        };
        let ends: Vec<_> = waiting.into_values().map(told).collect();
        for (slot, end) in ends {
            slot.fill(end);
        }
        for watcher in watchers.into_values() {
            watcher.fill(error.clone());
        }
    }

    /// An answer that nobody heard: a suspended execution would wait for nothing, a state be kept for nobody.
    /// `at`: its place, which is left when the execution has been cancelled.
    fn dispose(self: &Arc<Self>, unheard: Result<Answer, Error>, at: Option<Arc<PlaceHeld>>) {
        match unheard {
            Ok(Answer::Segment(segment)) => {
                if let Some(suspension) = segment.suspensions.first() {
                    self.cancel(Cancel::Suspension(&suspension.id));
                }
            }
            Ok(Answer::Results(segments, _)) => {
                for suspension in segments.iter().filter_map(|segment| segment.suspensions.first()) {
                    self.cancel(Cancel::Suspension(&suspension.id));
                }
            }
            Ok(Answer::StateCreated(id)) => {
                let sent = self.send(ClientMessage::DisposeState(DisposeState { id: &id }));
                sent.map(Pending::forget).unwrap_or_default();
            }
            _ => {}
        }
        drop(at);
    }

    fn write(&self, message: &ClientMessage<'_>, id: u32) -> Result<(), Error> {
        self.wire.write(|buffer| message.encode(RequestId(id), self.max_body_bytes, buffer).map_err(Error::request))
    }
}

impl Requests {
    /// Its id, and whether it must wait. `busy`: the sidecar has not read yet what was written.
    fn register(
        &mut self,
        mut entry: Entry,
        turn: Turn,
        busy: bool,
        is_bounded: bool,
    ) -> Result<(u32, bool), (Error, Entry)> {
        if let Some((error, _)) = &self.closed {
            return Err((error.clone(), entry));
        }
        if is_bounded && self.waiting.len() >= self.bound {
            return Err((overloaded("waitingRequests", self.bound, self.waiting.len()), entry));
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != RequestId::CONNECTION.0 && !self.waiting.contains_key(&self.last_id) {
                entry.place = match turn {
                    Turn::Urgent => Place::Urgent,
                    turn if !busy && self.outbox.pass(turn, Instant::now()) => Place::Sent,
                    _ => Place::Coming,
                };
                let waits = matches!(entry.place, Place::Coming);
                self.waiting.insert(self.last_id, entry);
                return Ok((self.last_id, waits));
            }
        }
    }

    /// Of a request that was answered, or that was not sent.
    /// `queued`: how long an execution had waited in the sidecar.
    fn remove(&mut self, id: u32, queued: Option<Duration>, room: &Condvar) -> Option<Entry> {
        let entry = self.waiting.remove(&id)?;
        if matches!(entry.place, Place::Sent) {
            self.outbox.done(queued);
            if !self.outbox.is_empty() {
                room.notify_one();
            }
        }
        Some(entry)
    }
}
