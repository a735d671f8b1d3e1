// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! Words of which something is one, as this crate's own types: the wire's may grow without the programs that use this
//! crate.

use nexus_protocol::message;

/// How a handler's extension calls suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SuspendMode {
    /// They return promises.
    Await,
    /// They return values; the stack is captured.
    Stack,
}

impl SuspendMode {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Await, Self::Stack];

    /// Its name, as in other clients and on the wire.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }

    pub(crate) const fn wire(self) -> message::SuspendMode {
        match self {
            Self::Await => message::SuspendMode::Await,
            Self::Stack => message::SuspendMode::Stack,
        }
    }

    pub(crate) const fn of(told: message::SuspendMode) -> Self {
        match told {
            message::SuspendMode::Await => Self::Await,
            message::SuspendMode::Stack => Self::Stack,
        }
    }
}

/// How a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// The handler returned.
    Success,
    /// The handler waits for extension calls.
    Suspended,
    /// The execution failed.
    Error,
}

impl Status {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Success, Self::Suspended, Self::Error];

    /// Its name, as in other clients and on the wire.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }

    pub(crate) const fn wire(self) -> message::Status {
        match self {
            Self::Success => message::Status::Success,
            Self::Suspended => message::Status::Suspended,
            Self::Error => message::Status::Error,
        }
    }

    pub(crate) const fn of(told: message::Status) -> Self {
        match told {
            message::Status::Success => Self::Success,
            message::Status::Suspended => Self::Suspended,
            message::Status::Error => Self::Error,
        }
    }
}

/// What an execution does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExecutionState {
    /// It waits for an instance.
    Queued,
    /// A segment of it runs.
    Running,
    /// It waits for extension calls.
    Suspended,
}

impl ExecutionState {
    /// Each of them.
    pub const ALL: &'static [Self] = &[Self::Queued, Self::Running, Self::Suspended];

    /// Its name, as in other clients and on the wire.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }

    pub(crate) const fn wire(self) -> message::ExecutionState {
        match self {
            Self::Queued => message::ExecutionState::Queued,
            Self::Running => message::ExecutionState::Running,
            Self::Suspended => message::ExecutionState::Suspended,
        }
    }

    pub(crate) const fn of(told: message::ExecutionState) -> Self {
        match told {
            message::ExecutionState::Queued => Self::Queued,
            message::ExecutionState::Running => Self::Running,
            message::ExecutionState::Suspended => Self::Suspended,
        }
    }
}
