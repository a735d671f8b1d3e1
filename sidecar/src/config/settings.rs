// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The configuration as the sidecar uses it, and every setting of it.

use std::path::PathBuf;

use log::LevelFilter;
use nexus_protocol::limits;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::isolation::Isolation;
use super::table::{Setting, bytes, count, live, millis, setting};
use super::value::{Kind, Place};

/// What is in force. Sizes are bytes, durations milliseconds; the unit is the last word of the name.
///
/// A `Config` that came out of [`ConfigArgs::load`](super::ConfigArgs::load) has every value within its bound and
/// `min_instances <= max_instances`.
///
/// What only the process that has the sockets needs to know is not told to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Instances that may run at once; from 3 on the last free one is for connections that run nothing. What takes its
    /// time on that one while others wait goes on beside it: as many more at most.
    pub max_instances: u64,
    /// Instances made ready at start.
    pub min_instances: u64,
    /// Memory of one execution, strings and ArrayBuffers included.
    pub memory_limit_bytes: u64,
    /// Stack of one execution; overflowing it is a RangeError.
    pub stack_size_bytes: u64,
    /// Running and queueing time of one execution, without the time it is suspended; 0 = no limit.
    pub timeout_ms: u64,
    /// Time that one suspension may wait to be resumed.
    pub suspension_timeout_ms: u64,
    /// Suspended executions held at once; an eighth more for connections with few.
    pub max_suspended: u64,
    /// Memory of suspended executions, with that of their guests or the images of these; an eighth more for connections
    /// with little of it.
    pub max_suspended_bytes: u64,
    /// Calls out of the sandbox per execution.
    pub max_host_calls: u64,
    /// Changes of $state per execution.
    pub max_state_mutations: u64,
    /// Events emitted per execution.
    pub max_events: u64,
    /// Source of one handler.
    pub max_source_bytes: u64,
    /// Result of one execution.
    pub max_result_bytes: u64,
    /// Log text returned by one execution.
    pub max_log_bytes: u64,
    /// One frame of the protocol.
    pub max_frame_bytes: u64,
    /// Executions that may wait for an instance, else OVERLOADED; an eighth more for connections with few.
    pub max_queued: u64,
    /// Time that one execution may wait for an instance.
    pub max_queue_ms: u64,
    /// Resident states of one connection.
    pub max_states: u64,
    /// Resident states of one connection, in memory.
    pub max_state_bytes: u64,
    /// Resident states of all connections; an eighth more for those with little.
    pub max_total_state_bytes: u64,
    /// Shared memory of one connection, for large payloads; 0 = none.
    pub max_arena_bytes: u64,
    /// Shared memory of all connections; an eighth more for those with little.
    pub max_total_arena_bytes: u64,
    /// Where compiled handlers are kept; none = in memory only.
    #[serde(skip)]
    pub cache_dir: Option<PathBuf>,
    /// Size of the cache of compiled handlers.
    pub max_cache_size_bytes: u64,
    /// Run native code; false interprets, about 500 times slower.
    pub enable_aot: bool,
    /// Allow SIMD instructions in the guest module.
    pub enable_simd: bool,
    /// Allow bulk memory instructions in the guest module.
    pub enable_bulk_memory: bool,
    /// Another guest module, as trusted as this program. `None`: the guest module that was built with this sidecar.
    pub quickjs_module_path: Option<PathBuf>,
    /// Put stacks and source snippets into errors.
    pub debug: bool,
    /// Refuse a handler before it runs when its grants cannot suffice.
    pub strict_capabilities: bool,
    /// Time that a sidecar which was told to end gives what is under way; then it is cancelled.
    pub drain_timeout_ms: u64,
    /// Users who may connect to a service, beside its own; numbers, or none.
    pub allow_uids: Vec<u32>,
    /// Where /metrics, /healthz and /readyz are served: 127.0.0.1:PORT, the path of a socket, or none.
    #[serde(skip)]
    pub http_listen: Option<Endpoint>,
    /// Let httpListen be an address that other machines reach: whoever reaches it reads the metrics.
    #[serde(skip)]
    pub http_allow_remote: bool,
    /// File that is written anew with the metrics every 15 s, for a collector of text files; none = no file.
    #[serde(skip)]
    pub metrics_textfile: Option<PathBuf>,
    /// Where guests run: in the process that serves (none), in a sealed one (shared), or in one for each connection
    /// (connection).
    pub isolation: Isolation,
    /// Sealed processes with a connection each, else OVERLOADED; each has an equal part of what all may have, and at
    /// least one instance and one of maxQueued and maxSuspended.
    pub max_workers: u64,
    /// Start only where guests run in a sealed process of which no wall is missing.
    pub require_sandbox: bool,
    /// Least severe log record that is written to stderr.
    pub log: LevelFilter,
    /// Write each log record as one JSON object: time, level, target, pid, message.
    pub log_json: bool,
}

impl Default for Config {
    /// The defaults, without a cache directory: that one depends on the environment, see
    /// [`ConfigArgs::load`](super::ConfigArgs::load).
    fn default() -> Self {
        Self {
            max_instances: limits::DEFAULT_MAX_INSTANCES as u64,
            min_instances: limits::DEFAULT_MIN_INSTANCES as u64,
            memory_limit_bytes: limits::DEFAULT_MEMORY_LIMIT_BYTES,
            stack_size_bytes: limits::DEFAULT_STACK_SIZE_BYTES,
            timeout_ms: limits::DEFAULT_TIMEOUT_MS,
            suspension_timeout_ms: limits::DEFAULT_SUSPENSION_TIMEOUT_MS,
            max_suspended: limits::DEFAULT_MAX_SUSPENDED,
            max_suspended_bytes: limits::DEFAULT_MAX_SUSPENDED_BYTES,
            max_host_calls: limits::DEFAULT_MAX_HOST_CALLS,
            max_state_mutations: limits::DEFAULT_MAX_STATE_MUTATIONS,
            max_events: limits::DEFAULT_MAX_EVENTS,
            max_source_bytes: limits::DEFAULT_MAX_SOURCE_BYTES,
            max_result_bytes: limits::DEFAULT_MAX_RESULT_BYTES,
            max_log_bytes: limits::DEFAULT_MAX_LOG_BYTES,
            max_frame_bytes: limits::DEFAULT_MAX_FRAME_BYTES,
            max_queued: limits::DEFAULT_MAX_QUEUED,
            max_queue_ms: limits::DEFAULT_MAX_QUEUE_MS,
            max_states: limits::DEFAULT_MAX_STATES,
            max_state_bytes: limits::DEFAULT_MAX_STATE_BYTES,
            max_total_state_bytes: limits::DEFAULT_MAX_TOTAL_STATE_BYTES,
            max_arena_bytes: limits::DEFAULT_MAX_ARENA_BYTES,
            max_total_arena_bytes: limits::DEFAULT_MAX_TOTAL_ARENA_BYTES,
            cache_dir: None,
            max_cache_size_bytes: limits::DEFAULT_MAX_CACHE_SIZE_BYTES,
            enable_aot: true,
            enable_simd: true,
            enable_bulk_memory: true,
            quickjs_module_path: None,
            debug: false,
            strict_capabilities: false,
            drain_timeout_ms: limits::DEFAULT_DRAIN_TIMEOUT_MS,
            allow_uids: Vec::new(),
            http_listen: None,
            http_allow_remote: false,
            metrics_textfile: None,
            isolation: Isolation::None,
            max_workers: limits::DEFAULT_MAX_WORKERS,
            require_sandbox: false,
            log: LevelFilter::Info,
            log_json: false,
        }
    }
}

pub static SETTINGS: [Setting; 40] = [
    setting(
        "maxInstances",
        count(limits::MIN_MAX_INSTANCES as u64, limits::MAX_INSTANCES_CEILING),
        "Instances that may run at once; from 3 on the last free one is for connections that run nothing",
        |c| Place::Number(&mut c.max_instances),
    ),
    setting(
        "minInstances",
        count(limits::MIN_MAX_INSTANCES as u64, limits::MAX_INSTANCES_CEILING),
        "Instances made ready at start",
        |c| Place::Number(&mut c.min_instances),
    ),
    Setting {
        env_mebibytes: Some("NEXUS_MEMORY_LIMIT_MB"),
        ..live(
            "memoryLimitBytes",
            bytes(limits::MIN_MEMORY_LIMIT_BYTES, limits::MEMORY_LIMIT_BYTES_CEILING),
            "Memory of one execution, strings and ArrayBuffers included",
            |c| Place::Number(&mut c.memory_limit_bytes),
        )
    },
    setting(
        "stackSizeBytes",
        bytes(limits::MIN_STACK_SIZE_BYTES, limits::STACK_SIZE_BYTES_CEILING),
        "Stack of one execution; overflowing it is a RangeError",
        |c| Place::Number(&mut c.stack_size_bytes),
    ),
    live(
        "timeoutMs",
        millis(0, limits::WAIT_MS_CEILING),
        "Running and queueing time of one execution, without the time it is suspended; 0 = no limit",
        |c| Place::Number(&mut c.timeout_ms),
    ),
    live(
        "suspensionTimeoutMs",
        millis(1, limits::WAIT_MS_CEILING),
        "Time that one suspension may wait to be resumed",
        |c| Place::Number(&mut c.suspension_timeout_ms),
    ),
    live(
        "maxSuspended",
        count(0, limits::MAX_SUSPENDED_CEILING),
        "Suspended executions held at once; an eighth more for connections with few",
        |c| Place::Number(&mut c.max_suspended),
    ),
    live(
        "maxSuspendedBytes",
        bytes(limits::MIN_MAX_SUSPENDED_BYTES, limits::SIZE_BYTES_CEILING),
        "Memory of suspended executions, with that of their guests or the images of these; an eighth more for connections with little of it",
        |c| Place::Number(&mut c.max_suspended_bytes),
    ),
    live("maxHostCalls", count(0, limits::COUNT_CEILING), "Calls out of the sandbox per execution", |c| {
        Place::Number(&mut c.max_host_calls)
    }),
    live("maxStateMutations", count(0, limits::COUNT_CEILING), "Changes of $state per execution", |c| {
        Place::Number(&mut c.max_state_mutations)
    }),
    live("maxEvents", count(0, limits::COUNT_CEILING), "Events emitted per execution", |c| {
        Place::Number(&mut c.max_events)
    }),
    live("maxSourceBytes", bytes(1, limits::MAX_FRAME_BYTES_CEILING), "Source of one handler", |c| {
        Place::Number(&mut c.max_source_bytes)
    }),
    live("maxResultBytes", bytes(1, limits::MAX_FRAME_BYTES_CEILING), "Result of one execution", |c| {
        Place::Number(&mut c.max_result_bytes)
    }),
    live("maxLogBytes", bytes(0, limits::MAX_FRAME_BYTES_CEILING), "Log text returned by one execution", |c| {
        Place::Number(&mut c.max_log_bytes)
    }),
    setting(
        "maxFrameBytes",
        bytes(limits::MIN_MAX_FRAME_BYTES, limits::MAX_FRAME_BYTES_CEILING),
        "One frame of the protocol",
        |c| Place::Number(&mut c.max_frame_bytes),
    ),
    live(
        "maxQueued",
        count(0, limits::MAX_QUEUED_CEILING),
        "Executions that may wait for an instance, else OVERLOADED; an eighth more for connections with few",
        |c| Place::Number(&mut c.max_queued),
    ),
    live("maxQueueMs", millis(0, limits::WAIT_MS_CEILING), "Time that one execution may wait for an instance", |c| {
        Place::Number(&mut c.max_queue_ms)
    }),
    setting("maxStates", count(0, limits::COUNT_CEILING), "Resident states of one connection", |c| {
        Place::Number(&mut c.max_states)
    }),
    setting(
        "maxStateBytes",
        bytes(0, limits::SIZE_BYTES_CEILING),
        "Resident states of one connection, in memory",
        |c| Place::Number(&mut c.max_state_bytes),
    ),
    setting(
        "maxTotalStateBytes",
        bytes(0, limits::SIZE_BYTES_CEILING),
        "Resident states of all connections; an eighth more for those with little",
        |c| Place::Number(&mut c.max_total_state_bytes),
    ),
    setting(
        "maxArenaBytes",
        bytes(0, limits::MAX_FRAME_BYTES_CEILING),
        "Shared memory of one connection, for large payloads; 0 = none",
        |c| Place::Number(&mut c.max_arena_bytes),
    ),
    setting(
        "maxTotalArenaBytes",
        bytes(0, limits::SIZE_BYTES_CEILING),
        "Shared memory of all connections; an eighth more for those with little",
        |c| Place::Number(&mut c.max_total_arena_bytes),
    ),
    Setting {
        default_words: Some("nexus-sidecar in the user's cache directory"),
        ..setting(
            "cacheDir",
            Kind::Path { absent: "none" },
            "Where compiled handlers are kept; none = in memory only",
            |c| Place::Path(&mut c.cache_dir),
        )
    },
    setting("maxCacheSizeBytes", bytes(0, limits::SIZE_BYTES_CEILING), "Size of the cache of compiled handlers", |c| {
        Place::Number(&mut c.max_cache_size_bytes)
    }),
    setting("enableAOT", Kind::Switch, "Run native code; false interprets, about 500 times slower", |c| {
        Place::Switch(&mut c.enable_aot)
    }),
    setting("enableSIMD", Kind::Switch, "Allow SIMD instructions in the guest module", |c| {
        Place::Switch(&mut c.enable_simd)
    }),
    setting("enableBulkMemory", Kind::Switch, "Allow bulk memory instructions in the guest module", |c| {
        Place::Switch(&mut c.enable_bulk_memory)
    }),
    setting(
        "quickjsModulePath",
        Kind::Path { absent: "built-in" },
        "Another guest module, as trusted as this program",
        |c| Place::Path(&mut c.quickjs_module_path),
    ),
    live("debug", Kind::Switch, "Put stacks and source snippets into errors", |c| Place::Switch(&mut c.debug)),
    live("strictCapabilities", Kind::Switch, "Refuse a handler before it runs when its grants cannot suffice", |c| {
        Place::Switch(&mut c.strict_capabilities)
    }),
    live(
        "drainTimeoutMs",
        millis(0, limits::WAIT_MS_CEILING),
        "Time that a sidecar which was told to end gives what is under way; then it is cancelled",
        |c| Place::Number(&mut c.drain_timeout_ms),
    ),
    setting("allowUids", Kind::Uids, "Users who may connect to a service, beside its own; numbers, or none", |c| {
        Place::Uids(&mut c.allow_uids)
    }),
    setting(
        "httpListen",
        Kind::Endpoint,
        "Where /metrics, /healthz and /readyz are served: 127.0.0.1:PORT, the path of a socket, or none",
        |c| Place::Endpoint(&mut c.http_listen),
    ),
    setting(
        "httpAllowRemote",
        Kind::Switch,
        "Let httpListen be an address that other machines reach: whoever reaches it reads the metrics",
        |c| Place::Switch(&mut c.http_allow_remote),
    ),
    setting(
        "metricsTextfile",
        Kind::Path { absent: "none" },
        "File that is written anew with the metrics every 15 s, for a collector of text files; none = no file",
        |c| Place::Path(&mut c.metrics_textfile),
    ),
    setting(
        "isolation",
        Kind::Isolation,
        "Where guests run: in the process that serves (none), in a sealed one (shared), or in one for each connection (connection)",
        |c| Place::Isolation(&mut c.isolation),
    ),
    setting(
        "maxWorkers",
        count(limits::MIN_MAX_WORKERS as u64, limits::MAX_WORKERS_CEILING),
        "Sealed processes with a connection each, else OVERLOADED; each has an equal part of what all may have, and at least one instance and one of maxQueued and maxSuspended",
        |c| Place::Number(&mut c.max_workers),
    ),
    setting(
        "requireSandbox",
        Kind::Switch,
        "Start only where guests run in a sealed process of which no wall is missing",
        |c| Place::Switch(&mut c.require_sandbox),
    ),
    live("log", Kind::Level, "Least severe log record that is written to stderr", |c| Place::Level(&mut c.log)),
    setting(
        "logJson",
        Kind::Switch,
        "Write each log record as one JSON object: time, level, target, pid, message",
        |c| Place::Switch(&mut c.log_json),
    ),
];
