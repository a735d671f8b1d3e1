//! The configuration as the sidecar uses it.

use std::path::PathBuf;

use log::LevelFilter;
use nexus_protocol::limits;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::isolation::Isolation;

pub const DEFAULT_LOG: LevelFilter = LevelFilter::Info;

/// What is in force. Sizes are bytes, durations milliseconds; the unit is the last word of the name.
///
/// What only the process that has the sockets needs to know is not told to a worker.
///
/// A `Config` that came out of [`ConfigArgs::load`] has every value within its bound and `min_instances <= max_instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub max_instances: u64,
    pub min_instances: u64,
    pub memory_limit_bytes: u64,
    pub stack_size_bytes: u64,
    /// 0 = no deadline.
    pub timeout_ms: u64,
    pub suspension_timeout_ms: u64,
    pub max_suspended: u64,
    pub max_suspended_bytes: u64,
    pub max_host_calls: u64,
    pub max_state_mutations: u64,
    pub max_events: u64,
    pub max_source_bytes: u64,
    pub max_result_bytes: u64,
    pub max_log_bytes: u64,
    pub max_frame_bytes: u64,
    pub max_queued: u64,
    pub max_queue_ms: u64,
    /// Of one connection, as the next.
    pub max_states: u64,
    pub max_state_bytes: u64,
    pub max_total_state_bytes: u64,
    /// Of one connection; 0 = no shared memory.
    pub max_arena_bytes: u64,
    pub max_total_arena_bytes: u64,
    /// `None`: compiled handlers are kept in memory only.
    #[serde(skip)]
    pub cache_dir: Option<PathBuf>,
    pub max_cache_size_bytes: u64,
    pub enable_aot: bool,
    pub enable_simd: bool,
    pub enable_bulk_memory: bool,
    /// `None`: the guest module that was built with this sidecar.
    pub quickjs_module_path: Option<PathBuf>,
    pub debug: bool,
    pub strict_capabilities: bool,
    pub drain_timeout_ms: u64,
    /// Users who may connect to a service, beside its own.
    pub allow_uids: Vec<u32>,
    /// `None`: no HTTP endpoint.
    #[serde(skip)]
    pub http_listen: Option<Endpoint>,
    pub log: LevelFilter,
    pub isolation: Isolation,
    /// Does not start where a part of the worker's seal is missing.
    pub require_sandbox: bool,
}

impl Default for Config {
    /// The defaults, without a cache directory: that one depends on the environment, see [`ConfigArgs::load`].
    fn default() -> Self {
        Self {
            max_instances: u64::from(limits::DEFAULT_MAX_INSTANCES),
            min_instances: u64::from(limits::DEFAULT_MIN_INSTANCES),
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
            log: DEFAULT_LOG,
            isolation: Isolation::default(),
            require_sandbox: false,
        }
    }
}
