// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The kinds of messages (SPEC 3).

/// First element of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// Client's first frame.
    Hello = 0x01,
    /// Run a handler.
    Execute = 0x02,
    /// Compile a handler.
    Precompile = 0x03,
    /// Answer an extension call.
    Resume = 0x04,
    /// Stop an execution.
    Cancel = 0x05,
    /// Compile and infer.
    Check = 0x06,
    /// Figures.
    Stats = 0x07,
    /// Prometheus text.
    Metrics = 0x08,
    /// Are you there.
    Ping = 0x09,
    /// Drain and end.
    Shutdown = 0x0a,
    /// Keep a state.
    CreateState = 0x0b,
    /// Change a kept state.
    PatchState = 0x0c,
    /// Read a kept state.
    SnapshotState = 0x0d,
    /// Forget a kept state.
    DisposeState = 0x0e,
    /// Make a shared memory segment.
    OpenArena = 0x0f,
    /// What is there.
    Executions = 0x10,
    /// End one of the executions.
    Kill = 0x11,
    /// Run many handlers, one after another.
    ExecuteMany = 0x12,
    /// Sidecar's first frame.
    HelloAnswer = 0x81,
    /// One segment of an execution.
    Result = 0x82,
    /// A handle.
    Compiled = 0x83,
    /// Cancelled, drained or killed.
    Done = 0x84,
    /// What check found.
    Checked = 0x86,
    /// The figures.
    StatsAnswer = 0x87,
    /// The Prometheus text.
    MetricsAnswer = 0x88,
    /// Yes.
    Pong = 0x89,
    /// Where a state is kept.
    StateCreated = 0x8b,
    /// Its new version.
    StatePatched = 0x8c,
    /// Its contents.
    StateSnapshot = 0x8d,
    /// It is gone.
    StateDisposed = 0x8e,
    /// Where a shared memory segment is.
    Arena = 0x8f,
    /// The executions that are there.
    ExecutionsAnswer = 0x90,
    /// Results of executeMany, or a part of them.
    Results = 0x92,
    /// Part of an answer to execute or resume: what the handler has logged so far.
    Logs = 0x93,
    /// Failure.
    Error = 0xff,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Hello,
        Self::Execute,
        Self::Precompile,
        Self::Resume,
        Self::Cancel,
        Self::Check,
        Self::Stats,
        Self::Metrics,
        Self::Ping,
        Self::Shutdown,
        Self::CreateState,
        Self::PatchState,
        Self::SnapshotState,
        Self::DisposeState,
        Self::OpenArena,
        Self::Executions,
        Self::Kill,
        Self::ExecuteMany,
        Self::HelloAnswer,
        Self::Result,
        Self::Compiled,
        Self::Done,
        Self::Checked,
        Self::StatsAnswer,
        Self::MetricsAnswer,
        Self::Pong,
        Self::StateCreated,
        Self::StatePatched,
        Self::StateSnapshot,
        Self::StateDisposed,
        Self::Arena,
        Self::ExecutionsAnswer,
        Self::Results,
        Self::Logs,
        Self::Error,
    ];

    /// The kind of that number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0x01 => Some(Self::Hello),
            0x02 => Some(Self::Execute),
            0x03 => Some(Self::Precompile),
            0x04 => Some(Self::Resume),
            0x05 => Some(Self::Cancel),
            0x06 => Some(Self::Check),
            0x07 => Some(Self::Stats),
            0x08 => Some(Self::Metrics),
            0x09 => Some(Self::Ping),
            0x0a => Some(Self::Shutdown),
            0x0b => Some(Self::CreateState),
            0x0c => Some(Self::PatchState),
            0x0d => Some(Self::SnapshotState),
            0x0e => Some(Self::DisposeState),
            0x0f => Some(Self::OpenArena),
            0x10 => Some(Self::Executions),
            0x11 => Some(Self::Kill),
            0x12 => Some(Self::ExecuteMany),
            0x81 => Some(Self::HelloAnswer),
            0x82 => Some(Self::Result),
            0x83 => Some(Self::Compiled),
            0x84 => Some(Self::Done),
            0x86 => Some(Self::Checked),
            0x87 => Some(Self::StatsAnswer),
            0x88 => Some(Self::MetricsAnswer),
            0x89 => Some(Self::Pong),
            0x8b => Some(Self::StateCreated),
            0x8c => Some(Self::StatePatched),
            0x8d => Some(Self::StateSnapshot),
            0x8e => Some(Self::StateDisposed),
            0x8f => Some(Self::Arena),
            0x90 => Some(Self::ExecutionsAnswer),
            0x92 => Some(Self::Results),
            0x93 => Some(Self::Logs),
            0xff => Some(Self::Error),
            _ => None,
        }
    }

    /// Whether a request of this kind that failed, nobody knows where, may have changed something: it must not be sent
    /// again then.
    pub const fn has_effects(self) -> bool {
        matches!(self, Self::Execute | Self::Resume | Self::PatchState | Self::ExecuteMany)
    }
}
