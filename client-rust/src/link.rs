//! The writing half of a connection, and the requests that wait for an answer.
//!
//! Invariants: every [`Pending`] that was sent is filled exactly once, by its answer or by the end of the connection; a
//! request that nobody waits for any more is cancelled, and a suspension that nobody heard of too. A frame is written
//! whole, under one lock. The reader thread calls [`Link::complete`] and [`Link::close`], which never write.

use std::collections::HashMap;
use std::future::Future;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use nexus_protocol::limits::FRAME_BUFFER_KEEP_BYTES;
use nexus_protocol::message::{Cancel, DisposeState, HelloLimits, Stats};
use nexus_protocol::{ClientMessage, RequestId};

use crate::compiled::{Checked, CompiledParts};
use crate::error::Error;
use crate::executions::ExecutionInfo;
use crate::segment::Segment;
use crate::slot::{Slot, lock};

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
}

static LINKS: AtomicU64 = AtomicU64::new(1);

type AnswerSlot = Slot<Result<Answer, Error>>;

pub(crate) struct Link {
    /// Tells connections of this process apart.
    pub(crate) serial: u64,
    /// The end of the connection was asked for: the child's is awaited before anybody is told.
    pub(crate) draining: AtomicBool,
    pub(crate) greeting: Greeting,
    max_body_bytes: usize,
    writer: Mutex<Writer>,
    requests: Mutex<Requests>,
}

struct Writer {
    stream: UnixStream,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Requests {
    last_id: u32,
    waiting: HashMap<u32, Arc<AnswerSlot>>,
    /// Filled at the end of the connection; by a number of their own.
    watchers: HashMap<u64, Arc<Slot<Error>>>,
    last_watcher: u64,
    /// Why there is no connection any more, and since when.
    closed: Option<(Error, Instant)>,
}

impl Link {
    pub(crate) fn new(stream: UnixStream, greeting: Greeting) -> Arc<Self> {
        let max_body_bytes = usize::try_from(greeting.limits.max_frame_bytes).unwrap_or(usize::MAX);
        let writer = Mutex::new(Writer { stream, buffer: Vec::new() });
        let serial = LINKS.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            serial,
            draining: AtomicBool::new(false),
            greeting,
            max_body_bytes,
            writer,
            requests: Mutex::default(),
        })
    }

    /// Sends a request. Its answer, or the end of the connection, arrives in what is returned.
    pub(crate) fn send(self: &Arc<Self>, message: &ClientMessage<'_>) -> Result<Pending, Error> {
        let slot = Slot::new();
        let id = lock(&self.requests).register(&slot)?;
        let cancellable = matches!(message, ClientMessage::Execute(_) | ClientMessage::Resume(_));
        let pending = Pending { link: Arc::clone(self), id, cancellable, slot: Some(slot) };
        if let Err(error) = self.write(message, id) {
            pending.withdraw();
            return Err(error);
        }
        Ok(pending)
    }

    /// Cancels, without waiting for what becomes of it.
    pub(crate) fn cancel(self: &Arc<Self>, target: Cancel<'_>) {
        // An error means that the connection is gone, and with it the execution.
        if let Ok(pending) = self.send(&ClientMessage::Cancel(target)) {
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
        let waiting = lock(&self.requests).waiting.remove(&id.0);
        match waiting {
            Some(slot) => {
                if let Some(unheard) = slot.fill(result) {
                    self.dispose(unheard, true);
                }
            }
            None => log::warn!("the sidecar answered request {id}, which there is not"),
        }
    }

    /// Ends all waiting. Called once, by the reader thread.
    pub(crate) fn close(&self, error: &Error) {
        let mut requests = lock(&self.requests);
        requests.closed = Some((error.clone(), Instant::now()));
        let waiting = std::mem::take(&mut requests.waiting);
        let watchers = std::mem::take(&mut requests.watchers);
        drop(requests);
        for slot in waiting.into_values() {
            slot.fill(Err(error.clone()));
        }
        for watcher in watchers.into_values() {
            watcher.fill(error.clone());
        }
    }

    /// An answer that nobody heard: a suspended execution would wait for nothing, a state be kept for nobody.
    fn dispose(self: &Arc<Self>, unheard: Result<Answer, Error>, on_reader_thread: bool) {
        let link = Arc::clone(self);
        let cancel: Box<dyn FnOnce() + Send> = match unheard {
            Ok(Answer::Segment(segment)) => {
                let Some(suspension) = segment.suspensions.into_iter().next() else { return };
                Box::new(move || link.cancel(Cancel::Suspension(&suspension.id)))
            }
            Ok(Answer::StateCreated(id)) => Box::new(move || {
                let sent = link.send(&ClientMessage::DisposeState(DisposeState { id: &id }));
                sent.map(Pending::forget).unwrap_or_default();
            }),
            _ => return,
        };
        if on_reader_thread {
            // The reader must not wait for a write: the sidecar may wait for it to read. Rare enough for a thread.
            std::thread::spawn(cancel);
        } else {
            cancel();
        }
    }

    fn write(&self, message: &ClientMessage<'_>, id: u32) -> Result<(), Error> {
        let mut writer = lock(&self.writer);
        let Writer { stream, buffer } = &mut *writer;
        buffer.clear();
        message.encode(RequestId(id), self.max_body_bytes, buffer)?;
        if stream.write_all(buffer).is_err() {
            // The reader thread finds the connection at its end, and tells everybody how it came to that.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if buffer.capacity() > FRAME_BUFFER_KEEP_BYTES {
            *buffer = Vec::new();
        }
        Ok(())
    }
}

impl Requests {
    fn register(&mut self, slot: &Arc<AnswerSlot>) -> Result<u32, Error> {
        if let Some((error, _)) = &self.closed {
            return Err(error.clone());
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != RequestId::CONNECTION.0 && !self.waiting.contains_key(&self.last_id) {
                self.waiting.insert(self.last_id, Arc::clone(slot));
                return Ok(self.last_id);
            }
        }
    }
}

/// A request that was sent. An execution whose answer is dropped before it was taken is cancelled.
pub(crate) struct Pending {
    link: Arc<Link>,
    id: u32,
    /// Whether it runs a handler.
    cancellable: bool,
    /// `None` once the answer was taken or given up.
    slot: Option<Arc<AnswerSlot>>,
}

impl Pending {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Gives the answer up without cancelling anything. The entry stays until the answer comes.
    pub(crate) fn forget(mut self) {
        if let Some(slot) = self.slot.take() {
            slot.abandon();
        }
    }

    /// Takes back a request that was not written: no answer will come.
    fn withdraw(self) {
        lock(&self.link.requests).waiting.remove(&self.id);
        self.forget();
    }
}

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = &self.slot else { return Poll::Pending };
        let answer = slot.poll(context);
        if answer.is_ready() {
            self.slot = None;
        }
        answer
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        match slot.abandon() {
            Some(unheard) => self.link.dispose(unheard, false),
            None if self.cancellable => self.link.cancel(Cancel::Request(self.id)),
            None => {}
        }
    }
}

/// See [`Link::closed`].
pub(crate) struct Closed {
    link: Arc<Link>,
    number: u64,
    slot: Arc<Slot<Error>>,
}

impl Future for Closed {
    type Output = Error;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Error> {
        self.slot.poll(context)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        lock(&self.link.requests).watchers.remove(&self.number);
    }
}
