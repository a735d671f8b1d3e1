//! The part of the hub that tells which executions there are.
//!
//! An execution has one number for its whole life. What is told of it is put together when somebody asks: until then a
//! running one costs a pointer to its frame, and a suspended one its names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Execute, ExecutionState, Kind};

use super::super::incoming::Incoming;
use super::{Entry, Held, Holder, Hub, Job, Peer, SessionId};
use crate::engine::control::Control;
use crate::server::crew::{Run, Stage};

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
    Running(Arc<dyn Control>),
}

/// Since when the guest of a run is at work, and where its memory is told.
fn guest_of<P>(run: Option<&Run<P>>) -> (Option<Instant>, Memory) {
    match run.map(Run::stage) {
        Some(Stage::Executing(armed)) => (Some(armed.since), Memory::Running(armed.control.clone())),
        Some(Stage::Compiling(armed)) => (Some(armed.since), Memory::Unknown),
        Some(Stage::Host) | None => (None, Memory::Unknown),
    }
}

/// Whether a request that has not been suspended stands for an execution; several in one request are listed as one.
pub(super) fn is_executed(kind: Kind) -> bool {
    matches!(kind, Kind::Execute | Kind::ExecuteMany)
}

/// An execution, where it is in the books.
enum One<'a, E, P> {
    /// In its first segment.
    Running(&'a Run<P>),
    /// It has been suspended; the run that resumes it.
    Kept(&'a Entry<E, P>, Option<&'a Run<P>>),
    Queued(&'a Job<P>),
}

impl<E, P> One<'_, E, P> {
    /// Running ones first, then suspended, then queued, each kind oldest first.
    fn order(&self) -> (u8, Instant, u64) {
        match self {
            Self::Running(run) => (0, run.enqueued, run.number),
            Self::Kept(Entry { about, holder: Holder::Running(_), .. }, _) => (0, about.enqueued, about.number),
            Self::Kept(Entry { about, .. }, _) => (1, about.enqueued, about.number),
            Self::Queued(job) => (2, job.enqueued, job.number),
        }
    }

    fn listed(&self) -> Listed {
        match self {
            Self::Running(run) => {
                let (since, memory) = guest_of(Some(*run));
                Listed {
                    number: run.number,
                    session: run.session,
                    state: ExecutionState::Running,
                    names: Names::InFrame(run.frame.clone()),
                    enqueued: run.enqueued,
                    since,
                    cpu: Duration::ZERO,
                    memory,
                    pending_calls: 0,
                }
            }
            Self::Kept(entry, run) => {
                let about = &entry.about;
                let (state, (since, memory)) = match &entry.holder {
                    Holder::Running(_) => (ExecutionState::Running, guest_of(*run)),
                    Holder::Suspended(_) | Holder::Parking { .. } => {
                        (ExecutionState::Suspended, (None, Memory::Known(about.memory_bytes)))
                    }
                };
                Listed {
                    number: about.number,
                    session: entry.session,
                    state,
                    names: Names::Known(about.panel_id.clone(), about.handler_name.clone()),
                    enqueued: about.enqueued,
                    since,
                    cpu: about.cpu,
                    memory,
                    pending_calls: entry.ids.len(),
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

impl<E: Held, P: Peer> Hub<E, P> {
    /// What is there, running executions first, then suspended, then queued, each kind oldest first; and how many there are.
    pub fn list(&self, max: usize) -> (Vec<Listed>, usize) {
        let running = self.crew.runs().filter(|(_, run)| is_executed(run.kind)).map(|(_, run)| One::Running(run));
        let kept = self.entries.values().map(|entry| {
            let run = if let Holder::Running(run) = &entry.holder { self.crew.get(*run) } else { None };
            One::Kept(entry, run)
        });
        let queued = self.queued_jobs().filter(|job| is_executed(job.kind)).map(One::Queued);
        let mut all: Vec<One<'_, E, P>> = running.chain(kept).chain(queued).collect();
        let total = all.len();
        if max < total {
            // only these are put in order, and only of these anything is copied
            all.select_nth_unstable_by_key(max, One::order);
            all.truncate(max);
        }
        all.sort_unstable_by_key(One::order);
        (all.iter().map(One::listed).collect(), total)
    }
}
