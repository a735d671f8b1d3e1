//! Who waits, who runs, who is suspended: the books of a server, without sockets, threads or clocks of its own.
//!
//! ```text
//!   enqueue --> Queued --next_job--> Running --finish--> (answered)
//!                  |                    |  \--suspend--> Suspended --take--> Running ...
//!                cancel               cancel                cancel, expire, close
//!                                                  next_to_park | ^ parked, stay_live
//!                                                               v |
//!                                                             Parking
//! ```
//! Queues are per session and served in turn, so that one session cannot starve another. Everything that a session has goes
//! when the session goes. Executions that are to be dropped are handed to the caller, who drops them outside of the lock.

mod expiry;
mod listing;
mod sessions;
#[cfg(test)]
mod simulation;
mod suspensions;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::Kind;
use nexus_protocol::{RequestId, SuspensionId};

use super::connection::Connection;
use super::incoming::Incoming;
pub use expiry::{Due, Expired, Unread};
use listing::Underway;
pub use listing::{About, Listed, Memory, Names};
use sessions::Books;
pub use sessions::Left;

use super::holdings::{Holdings, Turn};
use crate::engine::control::{RunControl, StopCause};
use crate::execution::{Execution, Outstanding};

/// What the books know of a suspended execution.
pub trait Held {
    fn outstanding(&self) -> &[Outstanding];
    /// Memory that it takes outside of instances.
    fn held_bytes(&mut self) -> u64;
    /// CPU time so far, and what its values take.
    fn spent(&self) -> (Duration, u64);
}

impl Held for Execution {
    fn outstanding(&self) -> &[Outstanding] {
        self.outstanding()
    }

    fn held_bytes(&mut self) -> u64 {
        self.held_bytes()
    }

    fn spent(&self) -> (Duration, u64) {
        (self.cpu(), self.memory_used_bytes())
    }
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A request that needs a worker: still encoded, so that decoding a large one holds up nobody else.
#[derive(Debug)]
pub struct Job {
    /// Of its execution, in this server; given by the hub.
    pub number: u64,
    pub session: SessionId,
    pub id: RequestId,
    pub kind: Kind,
    pub frame: Arc<Incoming>,
    pub enqueued: Instant,
    pub due: Due,
    /// Where the answer goes.
    pub connection: Arc<Connection>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.frame.len()
    }
}

/// Bounds of the hub.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    pub max_running: usize,
    pub max_queued: usize,
    /// Of their frames, all sessions together.
    pub max_queued_bytes: usize,
    pub max_suspended: usize,
    pub max_suspended_bytes: u64,
    pub max_in_flight: usize,
    /// None: no bound.
    pub max_queue_time: Option<Duration>,
    pub suspension_timeout: Option<Duration>,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `maxQueued`, or the session's own bound.
    Overloaded { resource: &'static str, limit: usize, count: usize },
    /// The session already has a request with this id.
    DuplicateId,
    /// The server is about to end.
    Draining,
}

#[derive(Debug)]
enum Request {
    Queued,
    Running {
        job: Underway,
        control: Option<Arc<RunControl>>,
        cancelled: bool,
    },
    /// A resume that waits for whoever has the execution.
    Waiting {
        execution: u64,
    },
}

#[derive(Debug)]
enum Holder<E> {
    Suspended(Box<E>),
    /// A worker has it; `cancelled`: it is to end as soon as the worker is done with the segment.
    Running {
        control: Option<Arc<RunControl>>,
        cancelled: bool,
        /// When the guest began.
        since: Option<Instant>,
    },
    /// It is suspended, and somebody takes it out of its instance; `cancelled`: it is to end when that is done.
    Parking {
        cancelled: bool,
    },
}

#[derive(Debug)]
struct Entry<E> {
    session: SessionId,
    about: About,
    holder: Holder<E>,
    ids: Vec<SuspensionId>,
    expires: Option<Instant>,
    /// Resumes that wait for whoever has it.
    waiting: VecDeque<Job>,
    /// While it is suspended: its place among those that keep their instance; None: it is parked.
    turn: Option<Turn>,
    /// As counted in the holdings, while it is suspended.
    bytes: u64,
}

/// What a worker gets when it asks for a suspended execution.
#[derive(Debug)]
pub enum Taken<E = Execution> {
    Run {
        key: u64,
        execution: Box<E>,
    },
    /// Somebody else has the execution; the job waits for it.
    Waits,
    Unknown(Job),
}

/// Outcome of a cancellation.
#[derive(Debug)]
pub enum Cancelled<E = Execution> {
    Nothing,
    /// It will be answered by whoever has it.
    Underway,
    /// It was queued: the caller answers it.
    Job(Job),
    /// It was suspended: the caller drops it.
    Execution(Box<E>),
    /// It was suspended, and whoever parks it drops it.
    BeingParked,
}

/// Why a suspended execution was not kept.
#[derive(Debug)]
pub enum NotKept<E = Execution> {
    /// It was cancelled, or nobody is left who could resume it.
    Gone(Box<E>),
    /// A limit is reached.
    Limit { execution: Box<E>, resource: &'static str, limit: u64, count: u64 },
}

/// What came of parking an execution.
#[derive(Debug)]
pub enum ParkingEnd<E = Execution> {
    Parked,
    /// It has ended meanwhile: the caller drops it.
    Ended(Box<E>),
    /// It does not fit: the caller undoes it and calls `stay_live`.
    NoRoom(Box<E>),
}

/// See the module.
#[derive(Debug)]
pub struct Hub<E = Execution> {
    limits: HubLimits,
    sessions: HashMap<SessionId, Books>,
    /// Requests of sessions that are gone, which workers still run.
    closing: HashMap<SessionId, HashMap<RequestId, Request>>,
    /// Sessions that have something queued, in turn.
    turn: VecDeque<SessionId>,
    queued: usize,
    /// Of the frames of what is queued.
    queued_bytes: usize,
    running: usize,
    entries: HashMap<u64, Entry<E>>,
    by_suspension: HashMap<SuspensionId, u64>,
    /// When entries expire, and which: all that have a time, the next one first.
    expiring: BTreeSet<(Instant, u64)>,
    /// Of the next execution; also the key of its entry.
    next_number: u64,
    /// Those that are being parked included.
    suspended: usize,
    parking: usize,
    parked_suspensions: usize,
    holdings: Holdings,
    draining: bool,
}

impl<E: Held> Hub<E> {
    pub fn new(limits: HubLimits) -> Self {
        Self {
            holdings: Holdings::new(limits.max_running, limits.max_suspended_bytes),
            limits,
            sessions: HashMap::new(),
            closing: HashMap::new(),
            turn: VecDeque::new(),
            queued: 0,
            queued_bytes: 0,
            running: 0,
            entries: HashMap::new(),
            by_suspension: HashMap::new(),
            expiring: BTreeSet::new(),
            next_number: 1,
            suspended: 0,
            parking: 0,
            parked_suspensions: 0,
            draining: false,
        }
    }

    pub fn set_limits(&mut self, limits: HubLimits) {
        self.limits = limits;
        self.holdings.set_max_bytes(limits.max_suspended_bytes);
    }

    // ---- suspended executions ----

    /// Takes a suspended execution out, or marks one that runs so that it is not put back.
    fn end_entry(&mut self, key: u64) -> Option<Box<E>> {
        let entry = self.entries.get_mut(&key)?;
        match &mut entry.holder {
            Holder::Running { control, cancelled, .. } => {
                *cancelled = true;
                if let Some(control) = control {
                    control.stop(StopCause::Cancelled);
                }
                None
            }
            Holder::Parking { cancelled } => {
                *cancelled = true;
                // from now on it is as if it were gone
                let ids = std::mem::take(&mut entry.ids);
                self.forget_ids(&ids);
                None
            }
            Holder::Suspended(_) => {
                let entry = self.forget_entry(key)?;
                match entry.holder {
                    Holder::Suspended(execution) => {
                        self.no_longer_suspended(entry.turn, entry.bytes, execution.outstanding().len());
                        Some(execution)
                    }
                    Holder::Running { .. } | Holder::Parking { .. } => None,
                }
            }
        }
    }

    /// Takes an entry out of the books, with its ids and its time.
    fn forget_entry(&mut self, key: u64) -> Option<Entry<E>> {
        let entry = self.entries.remove(&key)?;
        if let Some(books) = self.sessions.get_mut(&entry.session) {
            books.entries.remove(&key);
        }
        self.forget_ids(&entry.ids);
        self.no_longer_expires(key, entry.expires);
        Some(entry)
    }

    fn no_longer_expires(&mut self, key: u64, expires: Option<Instant>) {
        if let Some(at) = expires {
            self.expiring.remove(&(at, key));
        }
    }

    fn no_longer_suspended(&mut self, turn: Option<Turn>, bytes: u64, outstanding: usize) {
        self.suspended -= 1;
        match turn {
            Some(turn) => self.holdings.remove_live(turn),
            None => {
                self.holdings.remove_parked();
                self.parked_suspensions -= outstanding;
            }
        }
        self.holdings.remove_bytes(bytes);
    }

    fn forget_ids(&mut self, ids: &[SuspensionId]) {
        for id in ids {
            self.by_suspension.remove(id);
        }
    }

    // ---- queue ----

    /// Takes a job in, or gives it back with the reason.
    pub fn enqueue(&mut self, mut job: Job) -> Result<(), (Job, Refusal)> {
        let several = self.sessions.len() > 1;
        let Some(books) = self.sessions.get_mut(&job.session) else { return Ok(()) };
        if books.requests.contains_key(&job.id) {
            return Err((job, Refusal::DuplicateId));
        }
        if self.draining && job.kind != Kind::Resume {
            return Err((job, Refusal::Draining));
        }
        let free = self.limits.max_running.saturating_sub(self.running);
        // the setting before what follows from it
        let refused = if self.queued >= self.limits.max_queued + free {
            Some(("maxQueued", self.limits.max_queued, self.limits.max_queued + 1))
        } else if books.requests.len() >= self.limits.max_in_flight {
            Some(("maxInFlight", self.limits.max_in_flight, books.requests.len() + 1))
        } else if several && books.queue.len() >= self.limits.max_queued.div_ceil(2) + free {
            // the other half is for the others
            Some(("maxQueued", self.limits.max_queued.div_ceil(2), books.queue.len() + 1))
        } else if self.queued > 0 && self.queued_bytes + job.bytes() > self.limits.max_queued_bytes {
            Some(("maxQueuedBytes", self.limits.max_queued_bytes, self.queued_bytes + job.bytes()))
        } else {
            None
        };
        if let Some((resource, limit, count)) = refused {
            return Err((job, Refusal::Overloaded { resource, limit, count }));
        }
        job.number = self.next_number;
        self.next_number += 1;
        books.requests.insert(job.id, Request::Queued);
        if books.queue.is_empty() {
            self.turn.push_back(job.session);
        }
        self.queued += 1;
        self.queued_bytes += job.bytes();
        books.queue.push_back(job);
        Ok(())
    }

    /// Whether `next_job` would give one.
    pub fn has_ready(&self) -> bool {
        self.queued > 0 && self.running < self.limits.max_running
    }

    /// Whether the job that is next could run, and has waited for `age`.
    pub fn has_backlog(&self, now: Instant, age: Duration) -> bool {
        let next = self.turn.front().and_then(|session| self.sessions.get(session)?.queue.front());
        self.has_ready() && next.is_some_and(|job| now.saturating_duration_since(job.enqueued) >= age)
    }

    /// The next job, in turn of the sessions. It counts as running until `finish`.
    pub fn next_job(&mut self) -> Option<Job> {
        if self.running >= self.limits.max_running {
            return None;
        }
        let session = self.turn.pop_front()?;
        let books = self.sessions.get_mut(&session)?;
        let job = books.queue.pop_front()?;
        if !books.queue.is_empty() {
            self.turn.push_back(session);
        }
        self.queued -= 1;
        self.queued_bytes -= job.bytes();
        self.running += 1;
        let running = Request::Running { job: Underway::of(&job), control: None, cancelled: false };
        books.requests.insert(job.id, running);
        Some(job)
    }

    // ---- cancelling ----

    pub fn cancel_request(&mut self, session: SessionId, id: RequestId) -> Cancelled<E> {
        match self.request_mut(session, id) {
            None => Cancelled::Nothing,
            Some(request @ Request::Running { .. }) => {
                request.stop();
                Cancelled::Underway
            }
            Some(Request::Queued) => {
                let Some(Books { queue, .. }) = self.sessions.get_mut(&session) else { return Cancelled::Nothing };
                let Some(at) = queue.iter().position(|job| job.id == id) else { return Cancelled::Nothing };
                let Some(job) = queue.remove(at) else { return Cancelled::Nothing };
                if queue.is_empty() {
                    self.turn.retain(|s| *s != session);
                }
                self.queued -= 1;
                self.queued_bytes -= job.bytes();
                Cancelled::Job(job)
            }
            Some(Request::Waiting { execution }) => {
                let key = *execution;
                let Some(entry) = self.entries.get_mut(&key) else { return Cancelled::Nothing };
                let at = entry.waiting.iter().position(|job| job.session == session && job.id == id);
                match at.and_then(|at| entry.waiting.remove(at)) {
                    Some(job) => Cancelled::Job(job),
                    None => Cancelled::Nothing,
                }
            }
        }
    }

    pub fn cancel_suspension(&mut self, session: SessionId, id: SuspensionId) -> Cancelled<E> {
        let Some(key) = self.by_suspension.get(&id).copied() else { return Cancelled::Nothing };
        match self.entries.get(&key) {
            Some(entry) if entry.session == session => {
                let being_parked = matches!(entry.holder, Holder::Parking { .. });
                match self.end_entry(key) {
                    Some(execution) => Cancelled::Execution(execution),
                    None if being_parked => Cancelled::BeingParked,
                    None => Cancelled::Underway,
                }
            }
            _ => Cancelled::Nothing,
        }
    }

    // ---- ending ----

    /// Refuses everything but resumes from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends everything: what runs is stopped and answered by its worker, what is queued is for the caller to answer, what is
    /// suspended is for the caller to drop.
    pub fn cancel_all(&mut self) -> (Vec<Job>, Vec<Box<E>>) {
        for request in self.requests_mut() {
            request.stop();
        }
        let mut jobs = self.take_queued();
        jobs.extend(self.entries.values_mut().flat_map(|entry| std::mem::take(&mut entry.waiting)));
        let keys: Vec<u64> = self.entries.keys().copied().collect();
        (jobs, keys.into_iter().filter_map(|key| self.end_entry(key)).collect())
    }

    /// Everything that is queued, to be answered by the caller; nothing will run any more.
    pub fn drain_queues(&mut self) -> Vec<Job> {
        self.draining = true;
        self.take_queued()
    }

    /// Nothing is queued or running, and no resume waits for an execution that is being parked.
    pub fn is_quiet(&self) -> bool {
        self.queued == 0 && self.running == 0 && self.parking == 0
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn suspended(&self) -> usize {
        self.suspended
    }

    /// Suspended executions without an instance.
    pub fn parked_count(&self) -> usize {
        self.holdings.parked()
    }

    /// What suspended executions take outside of instances.
    pub fn suspended_bytes(&self) -> u64 {
        self.holdings.bytes()
    }

    /// Suspensions of parked executions.
    pub fn parked_suspensions(&self) -> usize {
        self.parked_suspensions
    }

    pub fn suspensions(&self) -> usize {
        self.by_suspension.len()
    }
}
