// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The figures of a sidecar (SPEC 3, stats).

use serde::{Deserialize, Serialize};

/// Figures since the sidecar started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Executions since the start of the sidecar.
    pub total_executions: u64,
    /// Instances that run something.
    pub active_instances: u64,
    /// Instances that wait for something to run.
    pub available_instances: u64,
    /// Executions that wait for extension calls, whether they hold an instance or are parked.
    pub suspended_instances: u64,
    /// Part of the handlers that were compiled already, in memory or on disk: 0 to 1.
    pub cache_hit_rate: f64,
    /// Time of an execution on average, in microseconds as the next three.
    pub avg_execution_time_us: f64,
    /// Half of the executions took no longer.
    pub p50_execution_time_us: u64,
    /// 95 of 100 took no longer.
    pub p95_execution_time_us: u64,
    /// 99 of 100 took no longer.
    pub p99_execution_time_us: u64,
    /// Memory of suspended executions with their guests, of resident states and of the compile cache; an instance that
    /// is idle or at work counts as what an idle one takes.
    pub total_memory_bytes: u64,
    /// Instances made.
    pub instances_created: u64,
    /// Executions in an instance that had run something before.
    pub instances_reused: u64,
    /// Compiled handlers in memory.
    pub cache_entries: u64,
    /// Bytes of the compiled handlers in memory.
    pub cache_size_bytes: u64,
    /// Executions that wait for an instance.
    pub queued: u64,
    /// Time since the start of the sidecar.
    pub uptime_ms: u64,
    /// Resident states.
    #[serde(default)]
    pub resident_states: u64,
    /// Bytes of the resident states.
    #[serde(default)]
    pub resident_state_bytes: u64,
    /// Bytes of the memory that is shared with clients.
    #[serde(default)]
    pub arena_bytes: u64,
    /// Bytes of the compile cache on disk, as far as its writer knows.
    #[serde(default)]
    pub cache_disk_bytes: u64,
    /// Entries of the compile cache on disk that were damaged, foreign or old.
    #[serde(default)]
    pub cache_rejected: u64,
}
