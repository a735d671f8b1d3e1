// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The fields of messages, and the maps in them. Every str and bin borrows: from the frame where a message was read,
//! from its owner where it is written.

use serde::{Deserialize, Serialize};

use crate::error::WireError;
use crate::message::{CallLimits, ExecutionState, Status, SuspendMode, region};
use crate::strict::{self, bins};
use crate::version::ProtocolVersion;

/// SPEC 2, client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello<'a> {
    /// `nexus-sidecar`.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub magic: &'a str,
    /// The lowest protocol version that the client speaks.
    pub min: ProtocolVersion,
    /// The highest.
    pub max: ProtocolVersion,
    /// Name and version of the client, for logs; at most 128 bytes.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub client: &'a str,
}

/// SPEC 2, sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarHello<'a> {
    /// The version that this connection uses.
    pub version: ProtocolVersion,
    /// The sidecar's version.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub build: &'a str,
    /// Digest of the guest module, 64 hex digits.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub engine: &'a str,
    /// The sidecar's process.
    pub pid: u32,
    /// Whether errors carry `stack` and `snippet`.
    pub debug: bool,
    /// The limits in force.
    #[serde(deserialize_with = "strict::map")]
    pub limits: HelloLimits,
}

/// The limits in force, in hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloLimits {
    /// Body of one frame.
    pub max_frame_bytes: u64,
    /// Source of one handler.
    pub max_source_bytes: u64,
    /// Value, effects and arguments of calls of one execution.
    pub max_result_bytes: u64,
    /// Running and queueing time of one execution; 0: no limit.
    pub timeout_ms: u64,
    /// Memory of one execution.
    pub memory_limit_bytes: u64,
    /// Stack of one execution.
    pub stack_size_bytes: u64,
    /// Time that one suspension may wait; 0: no limit.
    pub suspension_timeout_ms: u64,
    /// Host calls of one execution.
    pub max_host_calls: u64,
    /// State mutations of one execution.
    pub max_state_mutations: u64,
    /// Events of one execution.
    pub max_events: u64,
    /// Requests of one connection without an answer.
    pub max_in_flight: u64,
    /// Resident states of one connection. 0: the sidecar keeps none.
    #[serde(default)]
    pub max_states: u64,
    /// Bytes of the resident states of one connection.
    #[serde(default)]
    pub max_state_bytes: u64,
    /// Shared memory of one connection. 0: everything travels through the socket.
    #[serde(default)]
    pub max_arena_bytes: u64,
    /// Suspended executions that the sidecar holds. Absent: it does not say; a client that begins more executions at
    /// once than may be suspended keeps the others back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_suspended: Option<u64>,
}

/// Execute as it is on the wire, before "exactly one of source and handler" is known to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExecuteFields<'a> {
    /// The handler.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub(super) source: Option<&'a str>,
    /// What precompile returned.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub(super) handler: Option<&'a [u8]>,
    /// For logs and metrics; at most 256 bytes, else `INVALID_ARGUMENT`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub(super) panel_id: Option<&'a str>,
    /// The same, and the name of the file in stacks.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub(super) handler_name: Option<&'a str>,
    /// Payload, a map with str keys, at most 1,000,000 (else `RESOURCE_LIMIT`, `maxStateKeys`); absent = `{}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub(super) state: Option<&'a [u8]>,
    /// Instead of `state` (both = malformed): the resident state to run on, `{id: str, expectVersion?: u64, exclusive?:
    /// bool}`; section 6.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub(super) resident: Option<Resident<'a>>,
    /// Payload, any value; absent = nil.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub(super) args: Option<&'a [u8]>,
    /// Payload, any value; absent = `{}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub(super) scope: Option<&'a [u8]>,
    /// Tokens, see below; at most 10,000, of at most 1,024 bytes each.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::texts")]
    pub(super) capabilities: Vec<&'a str>,
    /// The extensions and their methods, when the client wants unknown ones refused (`EXTENSION_NOT_FOUND`,
    /// `METHOD_NOT_FOUND`) and `$ext.list()` answered; absent = every name is accepted.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict::opt_extensions",
        serialize_with = "strict::write_opt_pairs"
    )]
    pub(super) extensions: Option<Vec<(&'a str, Vec<&'a str>)>>,
    /// The smaller of this and the configured one counts; 0 = the configured one. An execute that waits for an instance
    /// is answered with `TIMEOUT` when its time is used up; a resume that waits, when its turn comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeout_ms: Option<u64>,
    /// `memoryLimitBytes, maxHostCalls, maxStateMutations, maxEvents, maxResultBytes, maxLogBytes`; can only narrow (a
    /// larger value than the configured one has no effect); any other key is `INVALID_ARGUMENT`. `maxResultBytes`
    /// counts the value, the effects and the arguments of calls of all segments together.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<CallLimits<'a>>,
    /// True turns the static check on for this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strict_capabilities: Option<bool>,
    /// How extension calls suspend: they return promises, or the values themselves; absent = the handler's text
    /// decides. With `handler`, what it was compiled for counts, and the other is `INVALID_ARGUMENT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) suspend_mode: Option<SuspendMode>,
    /// For `Math.random`; absent = random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// True: what is logged is told while the handler runs, in frames of kind `logs`; see there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stream_logs: Option<bool>,
    /// Payloads that lie in shared memory, and a place for those of the answer; section 7.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub(super) regions: Regions,
}

/// ExecuteMany as it is on the wire, before each item is known to have exactly one of source and handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExecuteManyFields<'a> {
    /// What holds for each item that does not say otherwise.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub(super) common: Option<ManyItem<'a>>,
    /// 1 to 1,000 of them, else `INVALID_ARGUMENT`.
    #[serde(borrow, deserialize_with = "strict::maps")]
    pub(super) items: Vec<ManyItem<'a>>,
}

/// One execution of several: what is different about it, or what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManyItem<'a> {
    /// The handler.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub source: Option<&'a str>,
    /// What precompile returned. One of the two in an item stands for either in `common`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub handler: Option<&'a [u8]>,
    /// As in execute.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub panel_id: Option<&'a str>,
    /// As in execute.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub handler_name: Option<&'a str>,
    /// As in execute.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state: Option<&'a [u8]>,
    /// As in execute. One of the two in an item stands for either in `common`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub resident: Option<Resident<'a>>,
    /// As in execute.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub args: Option<&'a [u8]>,
    /// As in execute.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub scope: Option<&'a [u8]>,
    /// As in execute; all that the item has, not more beside those of `common`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_texts")]
    pub capabilities: Option<Vec<&'a str>>,
    /// As in execute.
    #[serde(
        borrow,
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "strict::opt_extensions",
        serialize_with = "strict::write_opt_pairs"
    )]
    pub extensions: Option<Vec<(&'a str, Vec<&'a str>)>>,
    /// As in execute, for each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// As in execute, for each item.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits<'a>>,
    /// As in execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_capabilities: Option<bool>,
    /// As in execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_mode: Option<SuspendMode>,
    /// As in execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// The state that an execute runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resident<'a> {
    /// What createState answered.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Refuse the execution unless the state has this version when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_version: Option<u64>,
    /// Refuse its changes if somebody else has changed the state meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "strict::flag")]
    pub exclusive: bool,
}

/// A request to compile a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Precompile<'a> {
    /// The handler.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub source: &'a str,
    /// For logs and metrics, and the name of the file in stacks; at most 256 bytes, else `INVALID_ARGUMENT`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub handler_name: Option<&'a str>,
    /// As in execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_mode: Option<SuspendMode>,
}

/// A compiled handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compiled<'a> {
    /// The handle: opaque, signed, valid for this sidecar.
    #[serde(borrow, deserialize_with = "strict::bin", serialize_with = "serde_bytes::serialize")]
    pub handler: &'a [u8],
    /// Tokens that the handler's text needs, as far as it tells.
    #[serde(borrow, deserialize_with = "strict::texts")]
    pub capabilities: Vec<&'a str>,
    /// What it was compiled for.
    pub suspend_mode: SuspendMode,
    /// Whether this connection has used the source before and it is still there.
    pub cache_hit: bool,
    /// Time that compiling took, in microseconds, whoever had it compiled.
    pub compilation_time_us: u64,
    /// See below.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
}

/// Something in a handler's text that its author should know, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note<'a> {
    /// For people.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub message: &'a str,
    /// From 1.
    pub line: u32,
    /// From 1, in UTF-16 units as JavaScript counts them.
    pub column: u32,
}

/// A request to compile a handler and tell about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check<'a> {
    /// The handler.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub source: &'a str,
}

/// What check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked<'a> {
    /// Who grants all of these has granted enough.
    #[serde(borrow, deserialize_with = "strict::texts")]
    pub capabilities: Vec<&'a str>,
    /// How the handler's extension calls suspend.
    pub suspend_mode: SuspendMode,
    /// Why it is that mode, for people. Absent: the sidecar does not say.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub suspend_reason: Option<&'a str>,
    /// Those of `capabilities` without which the handler fails whenever it runs, as far as its text tells, which is
    /// what `strictCapabilities` asks for.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::texts")]
    pub certain: Vec<&'a str>,
    /// What the handler's author should know of its text, such as a promise that is used as a value.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
    /// Why the text could not be analyzed, if it could not: then it may need anything, and `capabilities` is all there
    /// is.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub unparsed: Option<Note<'a>>,
}

/// Resume as it is on the wire, before it is known to have no more than one of `value` and `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ResumeFields<'a> {
    /// The id of the call, 32 hex digits.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub(super) suspension: &'a str,
    /// Payload: what the call returns; absent = nil.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub(super) value: Option<&'a [u8]>,
    /// What the call fails with inside of the handler: `{message: str, name?: str, code?: str}`; with `value` =
    /// malformed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub(super) error: Option<CallFailure<'a>>,
    /// Payloads that lie in shared memory, and a place for those of the answer; section 7.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub(super) regions: Regions,
}

/// The error of an extension call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFailure<'a> {
    /// Its text.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub message: &'a str,
    /// Its `name`; absent = `Error`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub name: Option<&'a str>,
    /// Its `code`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub code: Option<&'a str>,
}

/// Cancel as it is on the wire, before "exactly one" is known to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CancelFields<'a> {
    /// One of the execution's suspensions.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub(super) suspension: Option<&'a str>,
    /// The id of its unanswered execute or resume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<u32>,
}

/// Answer to cancel, shutdown and kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Whether there was something to cancel; of shutdown false.
    pub cancelled: bool,
}

/// What is scraped, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsText<'a> {
    /// Prometheus text format.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub text: &'a str,
}

/// One segment of an execution: how it ended, and what happened in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentResult<'a> {
    /// How it ended.
    pub status: Status,
    /// Number of this segment within its execution, from 0.
    pub seq: u32,
    /// Payload: what the handler returned (success); absent = nil.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub value: Option<&'a [u8]>,
    /// Payload: array of `{op: "set", key, value}` and `{op: "delete", key}`, in order.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state_mutations: Option<&'a [u8]>,
    /// Of an execution on a resident state: section 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_version: Option<u64>,
    /// Payload: array of `{name, payload, timestamp}` (timestamp: ms since 1970, number).
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub events: Option<&'a [u8]>,
    /// Payload: array of `{viewId, command, params}`; command `setFilter` (params `{value}`), `scrollTo`
    /// (`{position}`), `focus` (`{}`), or the handler's own.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub view_commands: Option<&'a [u8]>,
    /// Payload: array of `{level: "debug" | "info" | "warn" | "error", message: str, timestamp}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub logs: Option<&'a [u8]>,
    /// The calls that this segment made, in that order: `{id: str, extension: str, method: str, args: bin}` (args:
    /// payload, an array).
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub suspensions: Vec<PendingCall<'a>>,
    /// Why the execution failed: section 4.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub error: Option<WireError>,
    /// Of the handler's text, in the answer to execute alone: see above.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub warnings: Vec<Note<'a>>,
    /// Payloads that lie in shared memory: section 7.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
    /// Figures of the execution so far: below.
    #[serde(borrow, deserialize_with = "strict::map")]
    pub metrics: ExecutionMetrics<'a>,
}

/// What came of items of an executeMany, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results<'a> {
    /// Of the items that follow those of the parts before, as **result** tells them; `regions` are never there.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub results: Vec<SegmentResult<'a>>,
    /// This is a part: further ones follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "strict::flag")]
    pub more: bool,
}

/// What a handler has logged since the part before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsSoFar<'a> {
    /// Payload: as `logs` of a result.
    #[serde(borrow, deserialize_with = "strict::bin", serialize_with = "serde_bytes::serialize")]
    pub logs: &'a [u8],
}

/// One outstanding extension call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCall<'a> {
    /// For resume, 32 hex digits.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Name of the extension.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub extension: &'a str,
    /// Name of its method.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub method: &'a str,
    /// Payload, an array: what the handler called it with.
    #[serde(borrow, deserialize_with = "strict::bin", serialize_with = "serde_bytes::serialize")]
    pub args: &'a [u8],
}

/// Figures of one execution, all of its segments so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionMetrics<'a> {
    /// Time from the request to the answer, in microseconds; suspended time is not counted.
    pub duration_us: u64,
    /// Processor time, in microseconds.
    pub cpu_us: u64,
    /// Time in the queue for an instance, in microseconds.
    pub queue_us: u64,
    /// Memory in use at the end of the segment.
    pub memory_used_bytes: u64,
    /// Most memory that was in use.
    pub memory_peak_bytes: u64,
    /// Instructions, approximately.
    pub instruction_count: u64,
    /// Calls out of the sandbox by their names, such as `state_get`; for people, the names may change.
    #[serde(borrow, deserialize_with = "strict::counts", serialize_with = "strict::write_pairs")]
    pub host_calls: Vec<(&'a str, u64)>,
    /// Whether the compiled form was there already, as in compiled.
    pub cache_hit: bool,
    /// Time that compiling it took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compilation_time_us: Option<u64>,
}

/// A request to keep a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateState<'a> {
    /// Payload, a map; absent = `{}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state: Option<&'a [u8]>,
    /// Where `state` lies, if it is in shared memory.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A state that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCreated<'a> {
    /// For its use, 32 hex digits.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Its version, 1.
    pub version: u64,
}

/// A request to change a kept state. Keys are deleted first, then set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchState<'a> {
    /// What createState answered.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Payload, a map: keys and their new values; absent = `{}`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub set: Option<&'a [u8]>,
    /// Keys.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::texts")]
    pub delete: Vec<&'a str>,
    /// Refuse the patch unless the state has this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_version: Option<u64>,
    /// Where `set` lies, if it is in shared memory.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A state that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePatched {
    /// The version that this made.
    pub version: u64,
}

/// A request to read a kept state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState<'a> {
    /// What createState answered.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
    /// Only these, those that are there; absent = all.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_texts")]
    pub keys: Option<Vec<&'a str>>,
    /// A place for the answer's `state`.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// What a kept state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSnapshot<'a> {
    /// The version that is told.
    pub version: u64,
    /// Payload, a map, its keys sorted by their bytes. Absent: it lies in shared memory.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", with = "bins")]
    pub state: Option<&'a [u8]>,
    /// Where `state` lies, if it is in shared memory.
    #[serde(default, skip_serializing_if = "Regions::is_empty", deserialize_with = "region::optional")]
    pub regions: Regions,
}

/// A request to forget a kept state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisposeState<'a> {
    /// What createState answered.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub id: &'a str,
}

/// A state that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDisposed {
    /// Whether there was one.
    pub disposed: bool,
}

/// OpenArena as it is on the wire, before it is known to be one of its two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenArenaFields {
    /// The first form: the size that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    /// The second form: which arena.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    /// The second form: whether the client has it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<bool>,
}

/// The arena of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arena<'a> {
    /// Which one it is of those that the connection has had.
    pub generation: u64,
    /// Its size; 0: it is no more.
    pub bytes: u64,
    /// Of the file in /dev/shm, while it has one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub name: Option<&'a str>,
}

/// A part of an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Of the arena.
    pub generation: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// CRC-32 (IEEE) of the bytes, for a reader that wants to be sure that it read what was meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<u32>,
}

/// Payload fields of a message that lie in the arena instead of in the message, by their names; and in a request the
/// part of the arena that its answer may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Regions {
    /// Of execute, createState and stateSnapshot.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub state: Option<Region>,
    /// Of patchState.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub set: Option<Region>,
    /// Of execute.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub args: Option<Region>,
    /// Of execute.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub scope: Option<Region>,
    /// Of resume and result.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub value: Option<Region>,
    /// Of result.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub state_mutations: Option<Region>,
    /// A place for the payloads of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub reply: Option<Region>,
}

/// A request to end an execution of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Its `id` in executions.
    pub execution: u64,
}

/// The executions that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executions<'a> {
    /// At most 1,000: running ones first, then suspended, then queued.
    #[serde(borrow, deserialize_with = "strict::maps")]
    pub executions: Vec<ExecutionEntry<'a>>,
    /// How many there are, of which only some may be listed.
    pub total: u64,
}

/// One execution. No source, state or value is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionEntry<'a> {
    /// Of this sidecar, for kill.
    pub id: u64,
    /// The connection that it came by.
    pub session: u64,
    /// As that client called itself in its hello.
    #[serde(borrow, deserialize_with = "strict::text")]
    pub client: &'a str,
    /// That client's process when it connected.
    pub pid: u32,
    /// As the client named it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub panel_id: Option<&'a str>,
    /// As the client named it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_text")]
    pub handler_name: Option<&'a str>,
    /// What it does.
    pub state: ExecutionState,
    /// Time since it arrived, in milliseconds.
    pub age_ms: u64,
    /// Processor time, that in the segment that runs included, in microseconds.
    pub cpu_us: u64,
    /// Of the instance while it runs, of the handler's values while it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Extension calls that it waits for.
    pub pending_calls: u32,
}
