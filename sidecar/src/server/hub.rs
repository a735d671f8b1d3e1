//! Who waits, who runs, who is suspended: the books of a server, without sockets, threads or clocks of their own.
//!
//! ```text
//!   enqueue --> Queued --next--> Running --answer--> (answered)
//!                  |                |  \--suspend--> Suspended --next (with a resume)--> Running ...
//!                cancel           cancel               cancel, expire, close
//!                                               next_to_park | ^ parked, stay_live
//!                                                            v |
//!                                                          Parking
//! ```
//! One fact stands in one book. A run stands in the [`Crew`](super::crew); requests and executions name it. What waits for a
//! worker stands in the queue of its session; what waits for an execution, in that execution's mailbox. Queues are served in
//! turn, and a session has a share of what may run at once, and of what may wait and be suspended (see [`crate::share`]), so that
//! one cannot starve another. Everything that a session has goes when the session goes. Executions that are to be dropped are handed to the caller, who drops them outside of the lock.

mod cancel;
mod expiry;
mod listing;
mod mailbox;
#[cfg(all(test, feature = "model"))]
mod model;
mod parking;
mod queue;
#[cfg(test)]
mod queue_tests;
mod runs;
mod sessions;
#[cfg(test)]
mod simulation;
mod suspensions;
mod turns;
mod usage;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::Kind;
use nexus_protocol::{RequestId, SuspensionId};

use super::connection::Connection;
use super::crew::{Crew, RunId};
use super::holdings::{Holdings, Seat};
use super::incoming::Incoming;
use super::mark::Mark;
use super::roll::{Roll, Slot};
use crate::budget::{Charge, Full};
use crate::execution::{Execution, Outstanding};

pub use expiry::{Due, Expired, Unread};
pub use listing::{About, Listed, Memory, Names};
pub use queue::{Next, Resumed, Taken, Way};
pub use runs::Retired;
use sessions::Books;
pub use sessions::{Closed, Left};
#[cfg(test)]
pub use simulation::FakeControl;
use turns::Turns;
use usage::Windows;

/// What the books know of a suspended execution.
pub trait Held {
    /// The calls that it waits for.
    fn outstanding(&self) -> usize;
    /// Those of them that it made in its last segment.
    fn new_calls(&self) -> &[Outstanding];
    /// The most that it can take, with the memory of its guest.
    fn held_bytes(&mut self) -> u64;
    /// Whether that is an estimate, and may be far above the truth.
    fn is_estimated(&self) -> bool;
    /// Whether it does without an instance.
    fn is_parked(&self) -> bool;
    /// CPU time so far, and what its values take.
    fn spent(&self) -> (Duration, u64);
}

impl Held for Execution {
    fn outstanding(&self) -> usize {
        self.outstanding().len()
    }

    fn new_calls(&self) -> &[Outstanding] {
        self.new_calls()
    }

    fn held_bytes(&mut self) -> u64 {
        self.held_bytes()
    }

    fn is_estimated(&self) -> bool {
        self.is_estimated()
    }

    fn is_parked(&self) -> bool {
        self.is_parked()
    }

    fn spent(&self) -> (Duration, u64) {
        (self.cpu(), self.memory_used_bytes())
    }
}

/// Where answers go.
pub trait Peer: Clone {
    /// Whether so many of them are not read that nothing more is to be begun for it.
    fn is_over(&self) -> bool;
    /// What whoever comes after this process would know of it.
    fn mark(&self) -> Mark {
        Mark::default()
    }
}

impl Peer for Arc<Connection> {
    fn is_over(&self) -> bool {
        Connection::is_over(self)
    }

    fn mark(&self) -> Mark {
        self.mark
    }
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A request that needs a worker: still encoded, so that decoding a large one holds up nobody else. `P`: where its answer goes.
#[derive(Clone, Debug)]
pub struct Job<P = Arc<Connection>> {
    /// Of its execution, in this server; given by the hub.
    pub number: u64,
    pub session: SessionId,
    pub id: RequestId,
    pub kind: Kind,
    /// The suspension that a resume is for, where its frame says so at once.
    pub suspension: Option<SuspensionId>,
    pub frame: Arc<Incoming>,
    pub enqueued: Instant,
    pub due: Due,
    /// Of an executeMany: items that have been run.
    pub done: usize,
    pub connection: P,
}

/// Bounds of the hub.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    pub max_running: usize,
    /// Of one session while there are several; at least 1.
    pub max_running_each: usize,
    /// What computes at once, at the most.
    pub processors: usize,
    /// Other sessions may come: the last free instance is kept for those that need it least.
    pub keeps_last: bool,
    pub max_queued: usize,
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
    Overloaded(Full),
    /// The session already has a request with this id.
    DuplicateId,
    /// The server, or the connection, is about to end.
    Draining,
}

/// Where an unanswered request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Queued,
    /// In the mailbox of an execution.
    Mailed(u64),
    Running(RunId),
}

/// An unanswered request, and where it stands in the roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unanswered {
    at: Request,
    slot: Slot,
}

/// What waits for a worker.
#[derive(Debug)]
enum Item<P> {
    Job(Job<P>),
    /// The first resume in the mailbox of an execution that nobody has.
    Mail(u64),
}

#[derive(Debug)]
enum Holder<E> {
    Suspended(Box<E>),
    Running(RunId),
    /// It is suspended, and somebody takes it out of its instance; `ended`: it is to be dropped when that is done.
    Parking {
        ended: bool,
    },
}

/// An execution that was suspended and is not over.
#[derive(Debug)]
struct Entry<E, P> {
    session: SessionId,
    about: About,
    holder: Holder<E>,
    /// Of its outstanding calls.
    ids: Vec<SuspensionId>,
    /// While nothing is in the mailbox and it does not run, it stands among those that expire.
    expires: Option<Instant>,
    /// Resumes, in the order in which they came.
    mailbox: VecDeque<Job<P>>,
    /// Its mail stands in the queue of its session.
    announced: bool,
    /// Since when its next segment could begin: resumes have waited for it until then, not for an instance.
    free_since: Instant,
    /// While it is suspended: its place among those that keep their instance; None: it is parked.
    seat: Option<Seat>,
    /// What it takes, while it is suspended.
    charge: Charge,
}

/// What a suspension id stands for.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The execution.
    key: u64,
    /// Where in its `ids`.
    at: usize,
    /// A resume for it is in the mailbox: another one comes too late.
    answered: bool,
}

/// Outcome of a cancellation.
#[derive(Debug)]
pub enum Cancelled<E = Execution, P = Arc<Connection>> {
    Nothing,
    /// It will be answered by whoever has it.
    Underway,
    /// It was queued: the caller answers it.
    Job(Job<P>),
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
    /// There is no room for what it takes while it keeps its instance: the caller makes it smaller and asks again, or gives it up.
    NoRoom { execution: Box<E>, full: Full },
    /// A limit is reached.
    Limit { execution: Box<E>, full: Full },
}

/// What came of parking an execution.
#[derive(Debug)]
pub enum ParkingEnd<E = Execution> {
    Parked,
    /// It has ended meanwhile: the caller drops it.
    Ended(Box<E>),
}

/// See the module.
#[derive(Debug)]
pub struct Hub<E = Execution, P = Arc<Connection>> {
    limits: HubLimits,
    pub crew: Crew<P>,
    sessions: HashMap<SessionId, Books<P>>,
    /// Sessions that have something in their queue.
    turns: Turns,
    windows: Windows,
    /// How often in turn the last instance went to a session whose runs are brief while another one waited.
    brief_in_turn: u32,
    /// Runs that have their instance beside `max_running`.
    beside: usize,
    /// Jobs in queues and mailboxes.
    queued: usize,
    entries: HashMap<u64, Entry<E, P>>,
    by_suspension: HashMap<SuspensionId, Place>,
    /// When entries expire, and which, the next one first.
    expiring: BTreeSet<(Instant, u64)>,
    /// Of the next execution; also the key of its entry.
    next_number: u64,
    /// Those that are being parked included.
    suspended: usize,
    parking: usize,
    parked_suspensions: usize,
    holdings: Holdings,
    draining: bool,
    /// Of all unanswered requests.
    roll: Roll,
}

impl<E: Held, P: Peer> Hub<E, P> {
    pub fn new(limits: HubLimits) -> Self {
        Self {
            holdings: Holdings::new(limits.max_running, limits.max_suspended_bytes),
            limits,
            crew: Crew::default(),
            sessions: HashMap::new(),
            turns: Turns::default(),
            windows: Windows::new(limits.processors),
            brief_in_turn: 0,
            beside: 0,
            queued: 0,
            entries: HashMap::new(),
            by_suspension: HashMap::new(),
            expiring: BTreeSet::new(),
            next_number: 1,
            suspended: 0,
            parking: 0,
            parked_suspensions: 0,
            draining: false,
            roll: Roll::default(),
        }
    }

    /// Where unanswered requests are written down from now on.
    pub fn keep_roll(&mut self, roll: Roll) {
        self.roll = roll;
    }

    pub fn set_limits(&mut self, limits: HubLimits) {
        self.limits = limits;
        self.holdings.set_max_bytes(limits.max_suspended_bytes);
    }

    /// Nothing is queued or running, and no resume waits for an execution that is being parked.
    pub fn is_quiet(&self) -> bool {
        self.queued == 0 && self.crew.running() == 0 && self.parking == 0
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn running(&self) -> usize {
        self.crew.running()
    }

    pub fn suspended(&self) -> usize {
        self.suspended
    }

    /// Suspended executions without an instance.
    pub fn parked_count(&self) -> usize {
        self.holdings.parked()
    }

    /// What suspended executions take, those that keep their instance with that one's memory.
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
