//! What is read from other modules when statistics are asked for.

use crate::sealed::Walls;

/// The figures that pool, queue, suspensions and cache keep; taken by whoever owns those, at the moment of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub active_instances: u64,
    pub available_instances: u64,
    /// Executions, parked ones included.
    pub suspended_instances: u64,
    pub parked_executions: u64,
    /// Since start.
    pub terminated_instances: u64,
    pub instances_created: u64,
    pub instances_reused: u64,
    pub total_memory_bytes: u64,
    /// What suspended executions take outside of instances.
    pub suspended_bytes: u64,
    /// Suspensions that wait; one suspended execution may have several.
    pub suspensions: u64,
    /// Of those, the ones of parked executions.
    pub parked_suspensions: u64,
    pub queued: u64,
    pub resident_states: u64,
    pub resident_state_bytes: u64,
    /// Stuck and not back.
    pub retired_threads: u64,
    /// Since start.
    pub retired_threads_total: u64,
    pub arena_bytes: u64,
    pub connections: u64,
    pub limits: Ceilings,
    pub walls: Walls,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub cache_rejected: u64,
    pub cache_entries: u64,
    pub cache_size_bytes: u64,
    /// As far as the cache's writer knows.
    pub cache_disk_bytes: u64,
}

/// As configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    pub instances: u64,
    pub queued: u64,
    pub suspended: u64,
    pub connections: u64,
}

impl Snapshot {
    /// 0 to 1; 0 before the first look-up.
    pub fn cache_hit_rate(&self) -> f64 {
        let lookups = self.cache_hits.saturating_add(self.cache_misses);
        if lookups == 0 { 0.0 } else { self.cache_hits as f64 / lookups as f64 }
    }
}
