//! The writing half of a connection, and the requests that wait for an answer.
//!
//! Invariants: every [`Pending`] that was sent is filled exactly once, by its answer or by the end of the connection; a
//! request that nobody waits for any more is cancelled, and a suspension that nobody heard of too. A frame is written
//! whole, and nobody waits for that (see [`Wire`]). Requests that the sidecar has no room for, or that come while it does not read,
//! wait in the outbox; a thread that is there only while some wait writes them. Large payloads go through shared memory where
//! there is some; a thread that is there only while it is set up opens it. All threads end with the connection, and nobody waits
//! for their end. Locks are taken in the order wire, requests, places of the arena.

mod answer;
mod answered;
mod pending;
mod requests;
mod waiting;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use nexus_protocol::message::{Cancel, OpenArena};
use nexus_protocol::{ClientMessage, RequestId};

use crate::arena::{Arena, Reply};
use crate::error::Error;
use crate::listed::{Listed, Listing};
use crate::live_logs::Ear;
use crate::options::ClientOptions;
use crate::outbox::Turn;
use crate::sharing::{Sharing, largest_payload};
use crate::slot::{Slot, block_on, lock};
use crate::wire::Wire;
use requests::{Entry, Parts, Place, Requests};

pub(crate) use answer::{Answer, AnswerSlot, Greeting, UNEXPECTED, answered};
pub(crate) use pending::{Closed, Pending, PlaceHeld};

static LINKS: AtomicU64 = AtomicU64::new(1);

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

/// What a request is a part of.
#[derive(Default)]
struct Belongs {
    /// Where it may be suspended.
    at: Option<Arc<PlaceHeld>>,
    /// The calls of its execution are listed.
    listing: Option<Listing>,
    /// What its handler logs is heard.
    ear: Option<Ear>,
    /// It begins many executions.
    parts: Option<Box<Parts>>,
}

impl Link {
    pub(crate) fn new(stream: UnixStream, greeting: Greeting, options: &ClientOptions) -> Arc<Self> {
        let max_body_bytes = usize::try_from(greeting.limits.max_frame_bytes).unwrap_or(usize::MAX);
        let sharing = Sharing::new(options.threshold(), greeting.limits.max_arena_bytes, max_body_bytes);
        let listed = Listed::new(greeting.limits.suspension_kept_ms());
        let serial = LINKS.fetch_add(1, Ordering::Relaxed);
        let requests = Requests::new(&greeting.limits, options.waiting());
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
        self.send_with(message, Belongs::default())
    }

    /// [`send`](Self::send) of an execute or a resume whose segment is to name every call that is outstanding after it.
    pub(crate) fn send_listed(self: &Arc<Self>, message: ClientMessage<'_>) -> Result<Pending, Error> {
        let listing = match &message {
            ClientMessage::Resume(resume) => self.listed.resume(resume.suspension),
            _ => Some(self.listed.begin()),
        };
        self.send_with(message, Belongs { listing, ..Belongs::default() })
    }

    /// Where something is done that may be suspended. It is taken with the first request that is sent from there.
    pub(crate) fn place(self: &Arc<Self>) -> Arc<PlaceHeld> {
        let number = lock(&self.requests).outbox.places.number();
        Arc::new(PlaceHeld { link: Arc::clone(self), number, was_taken: false })
    }

    /// As many as there are now, for what is begun by one request; where there is none, one that is waited for.
    pub(crate) fn places(self: &Arc<Self>, most: usize) -> Vec<Arc<PlaceHeld>> {
        let taken = lock(&self.requests).outbox.take_places(most, Instant::now());
        if taken.is_empty() {
            return vec![self.place()];
        }
        let held = |number| Arc::new(PlaceHeld { link: Arc::clone(self), number, was_taken: true });
        taken.into_iter().map(held).collect()
    }

    /// [`send`](Self::send) of what belongs to a run: an execute waits until its place is to be had.
    pub(crate) fn send_of(
        self: &Arc<Self>,
        message: ClientMessage<'_>,
        at: Option<Arc<PlaceHeld>>,
        ear: Option<Ear>,
    ) -> Result<Pending, Error> {
        self.send_with(message, Belongs { at, ear, ..Belongs::default() })
    }

    /// [`send`](Self::send) of many executions, which may be suspended at these places. It waits until one of them is taken.
    pub(crate) fn send_many(
        self: &Arc<Self>,
        message: ClientMessage<'_>,
        places: Vec<Arc<PlaceHeld>>,
    ) -> Result<Pending, Error> {
        // who has its place already waits behind nobody who needs one
        let at = places.iter().find(|place| !place.was_taken).cloned();
        let parts = Some(Box::new(Parts { places, ..Parts::default() }));
        self.send_with(message, Belongs { at, parts, ..Belongs::default() })
    }

    fn send_with(self: &Arc<Self>, mut message: ClientMessage<'_>, belongs: Belongs) -> Result<Pending, Error> {
        let Belongs { at, listing, ear, parts } = belongs;
        let slot = Slot::new();
        let lease = self.sharing.place(&mut message);
        let turn = match (Turn::of(&message), &at) {
            (Turn::Begins, Some(at)) => Turn::BeginsAt(at.number),
            (turn, _) => turn,
        };
        let entry = Entry { slot: Arc::clone(&slot), place: Place::Coming, lease, at, listing, parts, ear };
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

    fn write(&self, message: &ClientMessage<'_>, id: u32) -> Result<(), Error> {
        self.wire.write(|buffer| message.encode(RequestId(id), self.max_body_bytes, buffer).map_err(Error::request))
    }
}
