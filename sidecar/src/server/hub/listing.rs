//! The part of the hub that tells which executions there are, and ends one of anybody's.
//!
//! An execution has one number for its whole life. What is told of it is put together when somebody asks: until then a
//! running one costs a pointer to its frame, and a suspended one its names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Execute, ExecutionState, Kind};

use super::super::incoming::Incoming;
use super::{Cancelled, Entry, Held, Holder, Hub, Job, Request, SessionId};
use crate::engine::control::RunControl;

/// What is told of a request that runs.
#[derive(Debug)]
pub(super) struct Underway {
    pub number: u64,
    pub kind: Kind,
    pub frame: Arc<Incoming>,
    pub enqueued: Instant,
    /// When the guest began.
    pub since: Option<Instant>,
}

impl Underway {
    pub fn of(job: &Job) -> Self {
        let Job { number, kind, enqueued, .. } = *job;
        Self { number, kind, frame: job.frame.clone(), enqueued, since: None }
    }
}

/// What is told of an execution that has been suspended.
#[derive(Debug)]
pub struct About {
    pub number: u64,
    panel_id: Option<Box<str>>,
    handler_name: Option<Box<str>>,
    /// When its execute arrived.
    enqueued: Instant,
    /// As of its last segment.
    pub(super) cpu: Duration,
    pub(super) memory_bytes: u64,
}

impl About {
    pub fn new(number: u64, enqueued: Instant, request: &Execute<'_>, execution: &impl Held) -> Self {
        let (cpu, memory_bytes) = execution.spent();
        Self {
            number,
            panel_id: request.panel_id.map(Into::into),
            handler_name: request.handler_name.map(Into::into),
            enqueued,
            cpu,
            memory_bytes,
        }
    }
}

/// What is told of an execution.
#[derive(Debug)]
pub struct Listed {
    pub number: u64,
    pub session: SessionId,
    pub state: ExecutionState,
    pub names: Names,
    pub enqueued: Instant,
    /// When the segment began that runs.
    pub since: Option<Instant>,
    /// Of the segments before it.
    pub cpu: Duration,
    pub memory: Memory,
    pub pending_calls: usize,
}

/// Where the names of an execution are.
#[derive(Debug)]
pub enum Names {
    InFrame(Arc<Incoming>),
    Known(Option<Box<str>>, Option<Box<str>>),
}

/// Where the figure of an execution's memory is.
#[derive(Debug)]
pub enum Memory {
    Unknown,
    Known(u64),
    Running(Arc<RunControl>),
}

impl Memory {
    fn of(control: Option<&Arc<RunControl>>) -> Self {
        control.cloned().map_or(Self::Unknown, Self::Running)
    }
}

/// An execution, where it is in the books.
enum One<'a, E> {
    Running(SessionId, &'a Underway, Option<&'a Arc<RunControl>>),
    Kept(&'a Entry<E>),
    Queued(&'a Job),
}

impl<E> One<'_, E> {
    /// Running ones first, then suspended, then queued, each kind oldest first.
    fn order(&self) -> (u8, Instant, u64) {
        match self {
            Self::Running(_, job, _) => (0, job.enqueued, job.number),
            Self::Kept(Entry { about, holder: Holder::Running { .. }, .. }) => (0, about.enqueued, about.number),
            Self::Kept(Entry { about, .. }) => (1, about.enqueued, about.number),
            Self::Queued(job) => (2, job.enqueued, job.number),
        }
    }

    fn listed(&self) -> Listed {
        match self {
            Self::Running(session, job, control) => Listed {
                number: job.number,
                session: *session,
                state: ExecutionState::Running,
                names: Names::InFrame(job.frame.clone()),
                enqueued: job.enqueued,
                since: job.since,
                cpu: Duration::ZERO,
                memory: Memory::of(*control),
                pending_calls: 0,
            },
            Self::Kept(Entry { about, holder, session, ids, .. }) => {
                let (state, since, memory) = match holder {
                    Holder::Suspended(_) | Holder::Parking { .. } => {
                        (ExecutionState::Suspended, None, Memory::Known(about.memory_bytes))
                    }
                    Holder::Running { control, since, .. } => {
                        (ExecutionState::Running, *since, Memory::of(control.as_ref()))
                    }
                };
                Listed {
                    number: about.number,
                    session: *session,
                    state,
                    names: Names::Known(about.panel_id.clone(), about.handler_name.clone()),
                    enqueued: about.enqueued,
                    since,
                    cpu: about.cpu,
                    memory,
                    pending_calls: ids.len(),
                }
            }
            Self::Queued(job) => Listed {
                number: job.number,
                session: job.session,
                state: ExecutionState::Queued,
                names: Names::InFrame(job.frame.clone()),
                enqueued: job.enqueued,
                since: None,
                cpu: Duration::ZERO,
                memory: Memory::Unknown,
                pending_calls: 0,
            },
        }
    }
}

impl<E: Held> Hub<E> {
    /// What is there, running executions first, then suspended, then queued, each kind oldest first; and how many there are.
    pub fn list(&self, max: usize) -> (Vec<Listed>, usize) {
        let mut all: Vec<One<'_, E>> = self.running_ones().chain(self.kept_ones()).chain(self.queued_ones()).collect();
        let total = all.len();
        let order = |one: &One<'_, E>| one.order();
        if max < total {
            // only these are put in order, and only of these anything is copied
            all.select_nth_unstable_by_key(max, order);
            all.truncate(max);
        }
        all.sort_unstable_by_key(order);
        (all.iter().map(One::listed).collect(), total)
    }

    /// Those in their first segment.
    fn running_ones(&self) -> impl Iterator<Item = One<'_, E>> {
        self.requests().filter_map(|(session, _, request)| match request {
            Request::Running { job, control, .. } if job.kind == Kind::Execute => {
                Some(One::Running(session, job, control.as_ref()))
            }
            _ => None,
        })
    }

    /// Those that have been suspended.
    fn kept_ones(&self) -> impl Iterator<Item = One<'_, E>> {
        self.entries.values().map(One::Kept)
    }

    fn queued_ones(&self) -> impl Iterator<Item = One<'_, E>> {
        self.queued_jobs().filter(|job| job.kind == Kind::Execute).map(One::Queued)
    }

    /// Ends an execution of any session, by its number.
    pub fn kill(&mut self, number: u64) -> Cancelled<E> {
        if let Some(entry) = self.entries.get(&number) {
            let parking = matches!(entry.holder, Holder::Parking { .. });
            return match self.end_entry(number) {
                Some(execution) => Cancelled::Execution(execution),
                None if parking => Cancelled::BeingParked,
                None => Cancelled::Underway,
            };
        }
        let running = self.requests().find_map(|(session, id, request)| match request {
            Request::Running { job, .. } if job.number == number && job.kind == Kind::Execute => Some((session, id)),
            _ => None,
        });
        let queued = || self.queued_jobs().find(|job| job.number == number && job.kind == Kind::Execute);
        match running.or_else(|| queued().map(|job| (job.session, job.id))) {
            Some((session, id)) => self.cancel_request(session, id),
            None => Cancelled::Nothing,
        }
    }
}
