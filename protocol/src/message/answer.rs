//! What the sidecar sends. A field is named here as in SPEC.md (`cpu_us` = `cpuUs`), and described there.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::WireError;
use crate::limits::SUSPENSION_GRACE_MS;
use crate::message::region::{self, Regions};
use crate::strict::{self, bins};
use crate::version::ProtocolVersion;

/// SPEC 2, sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarHello<'a> {
    pub version: ProtocolVersion,
    #[serde(borrow, deserialize_with = "strict::text")]
    pub build: &'a str,
    #[serde(borrow, deserialize_with = "strict::text")]
    pub engine: &'a str,
    pub pid: u32,
    pub debug: bool,
    #[serde(deserialize_with = "strict::map")]
    pub limits: HelloLimits,
}

/// The limits in force, in hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloLimits {
    pub max_frame_bytes: u64,
    pub max_source_bytes: u64,
    pub max_result_bytes: u64,
    pub timeout_ms: u64,
    pub memory_limit_bytes: u64,
    pub stack_size_bytes: u64,
    pub suspension_timeout_ms: u64,
    pub max_host_calls: u64,
    pub max_state_mutations: u64,
    pub max_events: u64,
    pub max_in_flight: u64,
    /// 0: the sidecar keeps no states.
    #[serde(default)]
    pub max_states: u64,
    #[serde(default)]
    pub max_state_bytes: u64,
    /// 0: everything travels through the socket.
    #[serde(default)]
    pub max_arena_bytes: u64,
    /// None: an older sidecar, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_suspended: Option<u64>,
}

impl HelloLimits {
    /// How long the sidecar keeps an execution that nobody resumes; 0: for ever.
    pub fn suspension_kept_ms(&self) -> u64 {
        suspension_kept_ms(self.suspension_timeout_ms)
    }
}

/// How long an execution is kept that nobody resumes, by `suspensionTimeoutMs`; 0: for ever.
pub const fn suspension_kept_ms(suspension_timeout_ms: u64) -> u64 {
    match suspension_timeout_ms {
        0 => 0,
        ms => ms.saturating_add(SUSPENSION_GRACE_MS),
    }
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match strict::text(deserializer)? {
                    $($text => Ok(Self::$variant),)*
                    other => Err(D::Error::unknown_variant(other, &[$($text,)*])),
                }
            }
        }
    };
}

named! {
    /// How a handler's extension calls suspend.
    SuspendMode {
        /// They return promises.
        Await = "await",
        /// They return values; the stack is captured.
        Stack = "stack",
    }
}

named! {
    /// How a segment ended.
    Status {
        /// The handler returned.
        Success = "success",
        /// The handler waits for extension calls.
        Suspended = "suspended",
        /// The execution failed.
        Error = "error",
    }
}

named! {
    /// What an execution does.
    ExecutionState {
        /// It waits for an instance.
        Queued = "queued",
        /// A segment of it runs.
        Running = "running",
        /// It waits for extension calls.
        Suspended = "suspended",
    }
}

/// A compiled handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compiled<'a> {
    #[serde(borrow, deserialize_with = "strict::bin", serialize_with = "serde_bytes::serialize")]
    pub handler: &'a [u8],
    #[serde(borrow, deserialize_with = "strict::texts")]
    pub capabilities: Vec<&'a str>,
    pub suspend_mode: SuspendMode,
    pub cache_hit: bool,
    pub compilation_time_us: u64,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
}

/// Something in a handler's text that its author should know, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub message: &'a str,
    pub line: u32,
    pub column: u32,
}

/// What check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked<'a> {
    #[serde(borrow, deserialize_with = "strict::texts")]
    pub capabilities: Vec<&'a str>,
    pub suspend_mode: SuspendMode,
    /// None: an older sidecar, which does not say.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub suspend_reason: Option<&'a str>,
    /// Those of `capabilities` that are.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::texts")]
    pub certain: Vec<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub unparsed: Option<Note<'a>>,
}

/// Answer to cancel and shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub cancelled: bool,
}

/// Prometheus text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsText<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub text: &'a str,
}

/// One segment of an execution: how it ended, and what happened in it. Payload fields as in SPEC 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentResult<'a> {
    pub status: Status,
    pub seq: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub value: Option<&'a [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state_mutations: Option<&'a [u8]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_version: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub events: Option<&'a [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub view_commands: Option<&'a [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub logs: Option<&'a [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub suspensions: Vec<PendingCall<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub error: Option<WireError>,
    /// Of the handler's text, in the answer to its execute alone.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
    #[serde(borrow, deserialize_with = "strict::map")]
    pub metrics: ExecutionMetrics<'a>,
}

impl SegmentResult<'_> {
    /// A segment of which nothing is known yet but how it ended.
    pub fn new(status: Status, seq: u32) -> Self {
        Self {
            status,
            seq,
            value: None,
            state_mutations: None,
            state_version: None,
            events: None,
            view_commands: None,
            logs: None,
            suspensions: Vec::new(),
            error: None,
            warnings: Vec::new(),
            regions: Regions::NONE,
            metrics: ExecutionMetrics::default(),
        }
    }
}

/// One outstanding extension call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCall<'a> {
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    #[serde(borrow, deserialize_with = "strict::text")]
    pub extension: &'a str,
    #[serde(borrow, deserialize_with = "strict::text")]
    pub method: &'a str,
    #[serde(borrow, deserialize_with = "strict::bin", serialize_with = "serde_bytes::serialize")]
    pub args: &'a [u8],
}

/// Figures of one execution, all of its segments so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionMetrics<'a> {
    pub duration_us: u64,
    pub cpu_us: u64,
    pub queue_us: u64,
    pub memory_used_bytes: u64,
    pub memory_peak_bytes: u64,
    pub instruction_count: u64,
    #[serde(borrow, deserialize_with = "strict::counts", serialize_with = "strict::write_pairs")]
    pub host_calls: Vec<(&'a str, u64)>,
    pub cache_hit: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compilation_time_us: Option<u64>,
}
