// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The figures of a sidecar as this crate's own type: the wire's may grow without the programs that use this crate.

use nexus_protocol::message;

/// The sidecar's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
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
    pub resident_states: u64,
    /// Bytes of the resident states.
    pub resident_state_bytes: u64,
    /// Bytes of the memory that is shared with clients.
    pub arena_bytes: u64,
    /// Bytes of the compile cache on disk, as far as its writer knows.
    pub cache_disk_bytes: u64,
    /// Entries of the compile cache on disk that were damaged, foreign or old.
    pub cache_rejected: u64,
}

impl Stats {
    pub(crate) fn of(told: &message::Stats) -> Self {
        Self {
            total_executions: told.total_executions,
            active_instances: told.active_instances,
            available_instances: told.available_instances,
            suspended_instances: told.suspended_instances,
            cache_hit_rate: told.cache_hit_rate,
            avg_execution_time_us: told.avg_execution_time_us,
            p50_execution_time_us: told.p50_execution_time_us,
            p95_execution_time_us: told.p95_execution_time_us,
            p99_execution_time_us: told.p99_execution_time_us,
            total_memory_bytes: told.total_memory_bytes,
            instances_created: told.instances_created,
            instances_reused: told.instances_reused,
            cache_entries: told.cache_entries,
            cache_size_bytes: told.cache_size_bytes,
            queued: told.queued,
            uptime_ms: told.uptime_ms,
            resident_states: told.resident_states,
            resident_state_bytes: told.resident_state_bytes,
            arena_bytes: told.arena_bytes,
            cache_disk_bytes: told.cache_disk_bytes,
            cache_rejected: told.cache_rejected,
        }
    }
}
