//! What is read from other modules when statistics are asked for, and the statistics themselves.

use serde::Serialize;

/// The figures that pool, queue, suspensions and cache keep; taken by whoever owns those, at the moment of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub active_instances: u64,
    pub available_instances: u64,
    pub suspended_instances: u64,
    /// Since start.
    pub terminated_instances: u64,
    pub instances_created: u64,
    pub instances_reused: u64,
    pub total_memory_bytes: u64,
    /// Suspensions that wait; one suspended execution may have several.
    pub suspensions: u64,
    pub queued: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub cache_rejected: u64,
    pub cache_entries: u64,
    pub cache_size_bytes: u64,
}

impl Snapshot {
    /// 0 to 1; 0 before the first look-up.
    pub fn cache_hit_rate(&self) -> f64 {
        let lookups = self.cache_hits.saturating_add(self.cache_misses);
        if lookups == 0 {
            0.0
        } else {
            self.cache_hits as f64 / lookups as f64
        }
    }
}

/// The answer to `stats`. Times are those of ended executions since start.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub total_executions: u64,
    pub active_instances: u64,
    pub available_instances: u64,
    pub suspended_instances: u64,
    pub cache_hit_rate: f64,
    pub avg_execution_time_us: f64,
    #[serde(rename = "p50ExecutionTimeUs")]
    pub p50_execution_time_us: u64,
    #[serde(rename = "p95ExecutionTimeUs")]
    pub p95_execution_time_us: u64,
    #[serde(rename = "p99ExecutionTimeUs")]
    pub p99_execution_time_us: u64,
    pub total_memory_bytes: u64,
    pub instances_created: u64,
    pub instances_reused: u64,
    pub cache_entries: u64,
    pub cache_size_bytes: u64,
    pub queued: u64,
    pub uptime_ms: u64,
}
