// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! Words of which a field has one. Any other is malformed.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::strict;

/// How a handler's extension calls suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SuspendMode {
    /// They return promises.
    Await,
    /// They return values; the stack is captured.
    Stack,
}

impl SuspendMode {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Await => "await",
            Self::Stack => "stack",
        }
    }
}

impl Serialize for SuspendMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SuspendMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match strict::text(deserializer)? {
            "await" => Ok(Self::Await),
            "stack" => Ok(Self::Stack),
            other => Err(D::Error::unknown_variant(other, &["await", "stack"])),
        }
    }
}

/// How a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// The handler returned.
    Success,
    /// The handler waits for extension calls.
    Suspended,
    /// The execution failed.
    Error,
}

impl Status {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Suspended => "suspended",
            Self::Error => "error",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match strict::text(deserializer)? {
            "success" => Ok(Self::Success),
            "suspended" => Ok(Self::Suspended),
            "error" => Ok(Self::Error),
            other => Err(D::Error::unknown_variant(other, &["success", "suspended", "error"])),
        }
    }
}

/// What an execution does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExecutionState {
    /// It waits for an instance.
    Queued,
    /// A segment of it runs.
    Running,
    /// It waits for extension calls.
    Suspended,
}

impl ExecutionState {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Suspended => "suspended",
        }
    }
}

impl Serialize for ExecutionState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ExecutionState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match strict::text(deserializer)? {
            "queued" => Ok(Self::Queued),
            "running" => Ok(Self::Running),
            "suspended" => Ok(Self::Suspended),
            other => Err(D::Error::unknown_variant(other, &["queued", "running", "suspended"])),
        }
    }
}
