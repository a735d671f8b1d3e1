//! The messages of SPEC 2 and 3 and their fields.
//!
//! Every str and bin borrows: from the frame where a message was read, from its owner where it is written. A field is
//! named here as in SPEC.md (`panel_id` = `panelId`), and described there.
//!
//! Invariant: a decoded message has the shape that SPEC.md demands. Whether its *values* make sense (is the state
//! MessagePack, is the token known) is checked by `Execute::check` and by whoever uses the value.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::strict;

mod answer;
mod kind;
mod many;
mod maps;
mod region;
mod request;
mod stats;
mod words;

pub use answer::suspension_kept_ms;
pub use kind::Kind;
pub use many::ExecuteMany;
pub use maps::{
    Arena, CallFailure, Check, Checked, ClientHello, Compiled, CreateState, DisposeState, Done, ExecutionEntry,
    ExecutionMetrics, Executions, HelloLimits, Kill, LogsSoFar, ManyItem, MetricsText, Note, PatchState, PendingCall,
    Precompile, Region, Regions, Resident, Results, SegmentResult, SidecarHello, SnapshotState, StateCreated,
    StateDisposed, StatePatched, StateSnapshot,
};
pub use region::{ARENA_PREFIX, OpenArena, arena_owner};
pub use request::{CallLimits, Cancel, Code, Execute, Resolution, Resume};
pub use stats::Stats;
pub use words::{ExecutionState, Status, SuspendMode};

impl Kind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether a client sends it; else the sidecar does.
    pub const fn is_from_client(self) -> bool {
        self.number() < 0x80
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "made once per frame and matched at once; a box would cost an allocation per request"
)]
pub enum ClientMessage<'a> {
    /// First frame.
    Hello(ClientHello<'a>),
    /// Run a handler.
    Execute(Execute<'a>),
    /// Compile a handler.
    Precompile(Precompile<'a>),
    /// Answer an extension call.
    Resume(Resume<'a>),
    /// Stop an execution.
    Cancel(Cancel<'a>),
    /// Compile and infer.
    Check(Check<'a>),
    /// Figures.
    Stats,
    /// Prometheus text.
    Metrics,
    /// Are you there.
    Ping,
    /// Drain and end.
    Shutdown,
    /// Keep a state.
    CreateState(CreateState<'a>),
    /// Change a kept state.
    PatchState(PatchState<'a>),
    /// Read a kept state.
    SnapshotState(SnapshotState<'a>),
    /// Forget a kept state.
    DisposeState(DisposeState<'a>),
    /// Make a shared memory segment.
    OpenArena(OpenArena),
    /// What is there.
    Executions,
    /// End one of them.
    Kill(Kill),
    /// Run many handlers.
    ExecuteMany(ExecuteMany<'a>),
}

/// What the sidecar sends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "made once per frame and matched at once; a box would cost an allocation per answer"
)]
pub enum SidecarMessage<'a> {
    /// First frame.
    Hello(SidecarHello<'a>),
    /// One segment of an execution.
    Result(SegmentResult<'a>),
    /// A handle.
    Compiled(Compiled<'a>),
    /// Cancelled or drained.
    Done(Done),
    /// What check found.
    Checked(Checked<'a>),
    /// Figures.
    Stats(Stats),
    /// Prometheus text.
    Metrics(MetricsText<'a>),
    /// Yes.
    Pong,
    /// Where a state is kept.
    StateCreated(StateCreated<'a>),
    /// Its new version.
    StatePatched(StatePatched),
    /// Its contents.
    StateSnapshot(StateSnapshot<'a>),
    /// It is gone.
    StateDisposed(StateDisposed),
    /// Where a shared memory segment is.
    Arena(Arena<'a>),
    /// What is there.
    Executions(Executions<'a>),
    /// Segments of many executions, or a part of them.
    Results(Results<'a>),
    /// Part of an answer: what was logged so far.
    Logs(LogsSoFar<'a>),
    /// Failure.
    Error(WireError),
}

/// Fields of messages without any.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct NoFields {}

/// An error message: one key.
#[derive(Serialize, Deserialize)]
pub(crate) struct ErrorFields<E> {
    #[serde(deserialize_with = "strict::map", bound(deserialize = "E: Deserialize<'de>"))]
    pub(crate) error: E,
}
