//! What comes back over a connection, owned.

use nexus_protocol::message::{HelloLimits, Stats};

use crate::compiled::{Checked, CompiledParts};
use crate::error::Error;
use crate::executions::ExecutionInfo;
use crate::segment::Segment;
use crate::slot::Slot;

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

/// Where an answer is waited for.
pub(crate) type AnswerSlot = Slot<Result<Answer, Error>>;
