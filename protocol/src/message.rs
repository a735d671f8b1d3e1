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
mod operator;
mod region;
mod request;
mod resident;
mod stats;

pub use answer::{
    Checked, Compiled, Done, ExecutionMetrics, ExecutionState, HelloLimits, MetricsText, Note, PendingCall,
    SegmentResult, SidecarHello, Status, SuspendMode, suspension_kept_ms,
};
pub use operator::{ExecutionEntry, Executions, Kill};
pub use region::{ARENA_PREFIX, Arena, OpenArena, Region, Regions, arena_owner};
pub use request::{CallFailure, CallLimits, Cancel, Check, ClientHello, Code, Execute, Precompile, Resolution, Resume};
pub use resident::{
    CreateState, DisposeState, PatchState, Resident, SnapshotState, StateCreated, StateDisposed, StatePatched,
    StateSnapshot,
};
pub use stats::Stats;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal;)*) => {
        /// First element of a body.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant = $number,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The kind of that number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// Client's first frame.
    Hello = 0x01;
    /// Run a handler.
    Execute = 0x02;
    /// Compile a handler.
    Precompile = 0x03;
    /// Answer an extension call.
    Resume = 0x04;
    /// Stop an execution.
    Cancel = 0x05;
    /// Compile and infer.
    Check = 0x06;
    /// Figures.
    Stats = 0x07;
    /// Prometheus text.
    Metrics = 0x08;
    /// Are you there.
    Ping = 0x09;
    /// Drain and end.
    Shutdown = 0x0a;
    /// Keep a state.
    CreateState = 0x0b;
    /// Change a kept state.
    PatchState = 0x0c;
    /// Read a kept state.
    SnapshotState = 0x0d;
    /// Forget a kept state.
    DisposeState = 0x0e;
    /// Make a shared memory segment.
    OpenArena = 0x0f;
    /// What is there.
    Executions = 0x10;
    /// End one of them.
    Kill = 0x11;
    /// Sidecar's first frame.
    HelloAnswer = 0x81;
    /// One segment of an execution.
    Result = 0x82;
    /// A handle.
    Compiled = 0x83;
    /// Cancelled or drained.
    Done = 0x84;
    /// What check found.
    Checked = 0x86;
    /// Figures.
    StatsAnswer = 0x87;
    /// Prometheus text.
    MetricsAnswer = 0x88;
    /// Yes.
    Pong = 0x89;
    /// Where a state is kept.
    StateCreated = 0x8b;
    /// Its new version.
    StatePatched = 0x8c;
    /// Its contents.
    StateSnapshot = 0x8d;
    /// It is gone.
    StateDisposed = 0x8e;
    /// Where it is.
    Arena = 0x8f;
    /// What is there.
    ExecutionsAnswer = 0x90;
    /// Failure.
    Error = 0xff;
}

impl Kind {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether a request of this kind that failed, nobody knows where, may have changed something: it must not be sent again
    /// then.
    pub const fn has_effects(self) -> bool {
        matches!(self, Self::Execute | Self::Resume | Self::PatchState)
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
