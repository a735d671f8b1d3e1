//! The metrics: every name, what it means, its labels, and the handles that record it.
//!
//! Handles are registered once, at start; recording never looks a name up. Label values come from fixed lists only, so the
//! number of series does not depend on what clients or handlers do.

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use nexus_protocol::ErrorCode;

use super::registry::{Registry, Shape};
use super::{Snapshot, Status, SuspensionEvent};
use crate::sealed::Walls;

pub const EXECUTIONS_TOTAL: &str = "nexus_handler_executions_total";
pub const EXECUTION_DURATION_SECONDS: &str = "nexus_handler_execution_duration_seconds";
pub const EXECUTION_TIME_US: &str = "nexus_handler_execution_time_us";
pub const CACHE_HIT_RATE: &str = "nexus_cache_hit_rate";
pub const CACHE_HITS_TOTAL: &str = "nexus_cache_hits_total";
pub const CACHE_MISSES_TOTAL: &str = "nexus_cache_misses_total";
pub const CACHE_REJECTED_TOTAL: &str = "nexus_cache_rejected_total";
pub const CACHE_BYTES: &str = "nexus_cache_bytes";
pub const PEAK_MEMORY_BYTES: &str = "nexus_peak_memory_bytes";
pub const HOST_CALLS_TOTAL: &str = "nexus_host_calls_total";
pub const ERRORS_TOTAL: &str = "nexus_errors_total";
pub const POOL_INSTANCES: &str = "nexus_pool_instances";
pub const SUSPENSIONS: &str = "nexus_suspensions";
pub const SUSPENDED_BYTES: &str = "nexus_suspended_bytes";
pub const SUSPENSION_EVENTS_TOTAL: &str = "nexus_suspension_events_total";
pub const RESET_DURATION_SECONDS: &str = "nexus_reset_duration_seconds";
pub const QUEUE_DEPTH: &str = "nexus_queue_depth";
pub const RESIDENT_STATES: &str = "nexus_resident_states";
pub const RESIDENT_STATE_BYTES: &str = "nexus_resident_state_bytes";
pub const ARENA_BYTES: &str = "nexus_arena_bytes";
pub const CAPABILITY_VIOLATIONS_TOTAL: &str = "nexus_capability_violations_total";
pub const THREADS_RETIRED_TOTAL: &str = "nexus_threads_retired_total";
pub const RETIRED_THREADS: &str = "nexus_retired_threads";
pub const INSTANCES_TERMINATED_TOTAL: &str = "nexus_instances_terminated_total";
pub const CONNECTIONS: &str = "nexus_connections";
pub const LIMIT: &str = "nexus_limit";
pub const BUILD_INFO: &str = "nexus_build_info";
pub const WALLS: &str = "nexus_walls";

/// Names of before, which differ from another family's in their end alone, with the families that have taken their place. They go
/// with the next release.
pub const FORMER: [(&str, &str); 2] =
    [("nexus_suspensions_total", SUSPENSION_EVENTS_TOTAL), ("nexus_retired_threads_total", THREADS_RETIRED_TOTAL)];

/// From below a tiny handler (some 10 us) to above the default deadline.
const EXECUTION_BOUNDS: &[f64] = &[
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// A reset is some 10 us; a slow one copies or unmaps many pages.
const RESET_BOUNDS: &[f64] = &[5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3];

pub(super) const SHAPES: &[(&str, Shape)] = &[
    (EXECUTION_DURATION_SECONDS, Shape::Bounds(EXECUTION_BOUNDS)),
    (EXECUTION_TIME_US, Shape::Quantiles),
    (RESET_DURATION_SECONDS, Shape::Bounds(RESET_BOUNDS)),
];

/// Recorded while executions run.
#[derive(Debug)]
pub(super) struct Handles {
    /// By [`Status`].
    pub executions: [Counter; Status::ALL.len()],
    pub duration: Histogram,
    pub time: Histogram,
    pub reset: Histogram,
    /// By the index that the engine gives its host functions.
    pub host_calls: Vec<Counter>,
    /// Beside `ErrorCode::ALL`.
    pub errors: Vec<Counter>,
    /// By [`SuspensionEvent`].
    pub suspensions: [Counter; SuspensionEvent::ALL.len()],
    pub violations: Counter,
    read: ReadHandles,
}

/// Set from a [`Snapshot`] when somebody asks.
#[derive(Debug)]
struct ReadHandles {
    cache_hit_rate: Gauge,
    cache_hits: Counter,
    cache_misses: Counter,
    cache_rejected: Counter,
    cache_memory_bytes: Gauge,
    cache_disk_bytes: Gauge,
    peak_memory: Gauge,
    available: Gauge,
    active: Gauge,
    suspended: Gauge,
    terminated: Gauge,
    terminated_total: Counter,
    connections: Gauge,
    max_instances: Gauge,
    max_queued: Gauge,
    max_suspended: Gauge,
    max_connections: Gauge,
    live_suspensions: Gauge,
    parked_suspensions: Gauge,
    suspended_bytes: Gauge,
    queue_depth: Gauge,
    resident_states: Gauge,
    resident_state_bytes: Gauge,
    retired: Gauge,
    retired_total: Counter,
    arena_bytes: Gauge,
    /// By the parts of [`Walls`].
    walls: Vec<Gauge>,
}

impl Handles {
    pub(super) fn new(registry: &Registry, host_functions: &[&'static str]) -> Self {
        with_local_recorder(registry, || {
            describe();
            gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            let handles = Self {
                executions: Status::ALL.map(|status| counter!(EXECUTIONS_TOTAL, "status" => status.name())),
                duration: histogram!(EXECUTION_DURATION_SECONDS),
                time: histogram!(EXECUTION_TIME_US),
                reset: histogram!(RESET_DURATION_SECONDS),
                host_calls: host_functions.iter().map(|name| counter!(HOST_CALLS_TOTAL, "function" => *name)).collect(),
                errors: ErrorCode::ALL.iter().map(|code| counter!(ERRORS_TOTAL, "code" => code.as_str())).collect(),
                suspensions: SuspensionEvent::ALL
                    .map(|event| counter!(SUSPENSION_EVENTS_TOTAL, "event" => event.name())),
                violations: counter!(CAPABILITY_VIOLATIONS_TOTAL),
                read: ReadHandles {
                    cache_hit_rate: gauge!(CACHE_HIT_RATE),
                    cache_hits: counter!(CACHE_HITS_TOTAL),
                    cache_misses: counter!(CACHE_MISSES_TOTAL),
                    cache_rejected: counter!(CACHE_REJECTED_TOTAL),
                    cache_memory_bytes: gauge!(CACHE_BYTES, "tier" => "memory"),
                    cache_disk_bytes: gauge!(CACHE_BYTES, "tier" => "disk"),
                    peak_memory: gauge!(PEAK_MEMORY_BYTES),
                    available: gauge!(POOL_INSTANCES, "state" => "available"),
                    active: gauge!(POOL_INSTANCES, "state" => "active"),
                    suspended: gauge!(POOL_INSTANCES, "state" => "suspended"),
                    terminated: gauge!(POOL_INSTANCES, "state" => "terminated"),
                    terminated_total: counter!(INSTANCES_TERMINATED_TOTAL),
                    connections: gauge!(CONNECTIONS),
                    max_instances: gauge!(LIMIT, "of" => "instances"),
                    max_queued: gauge!(LIMIT, "of" => "queued"),
                    max_suspended: gauge!(LIMIT, "of" => "suspended"),
                    max_connections: gauge!(LIMIT, "of" => "connections"),
                    live_suspensions: gauge!(SUSPENSIONS, "state" => "live"),
                    parked_suspensions: gauge!(SUSPENSIONS, "state" => "parked"),
                    suspended_bytes: gauge!(SUSPENDED_BYTES),
                    queue_depth: gauge!(QUEUE_DEPTH),
                    resident_states: gauge!(RESIDENT_STATES),
                    resident_state_bytes: gauge!(RESIDENT_STATE_BYTES),
                    retired: gauge!(RETIRED_THREADS),
                    retired_total: counter!(THREADS_RETIRED_TOTAL),
                    arena_bytes: gauge!(ARENA_BYTES),
                    walls: Walls::default().parts().map(|(wall, _)| gauge!(WALLS, "wall" => wall)).collect(),
                },
            };
            for (former, now) in FORMER {
                registry.also_under(former, now, &format!("Use {now}: this name goes with the next release"));
            }
            handles
        })
    }

    pub(super) fn set(&self, snapshot: &Snapshot, peak_memory_bytes: u64) {
        let read = &self.read;
        read.cache_hit_rate.set(snapshot.cache_hit_rate());
        read.cache_hits.absolute(snapshot.cache_hits);
        read.cache_misses.absolute(snapshot.cache_misses);
        read.cache_rejected.absolute(snapshot.cache_rejected);
        read.cache_memory_bytes.set(snapshot.cache_size_bytes as f64);
        read.cache_disk_bytes.set(snapshot.cache_disk_bytes as f64);
        read.peak_memory.set(peak_memory_bytes as f64);
        read.available.set(snapshot.available_instances as f64);
        read.active.set(snapshot.active_instances as f64);
        read.suspended.set(snapshot.suspended_instances.saturating_sub(snapshot.parked_executions) as f64);
        read.terminated.set(snapshot.terminated_instances as f64);
        read.terminated_total.absolute(snapshot.terminated_instances);
        read.connections.set(snapshot.connections as f64);
        read.max_instances.set(snapshot.limits.instances as f64);
        read.max_queued.set(snapshot.limits.queued as f64);
        read.max_suspended.set(snapshot.limits.suspended as f64);
        read.max_connections.set(snapshot.limits.connections as f64);
        read.live_suspensions.set(snapshot.suspensions.saturating_sub(snapshot.parked_suspensions) as f64);
        read.parked_suspensions.set(snapshot.parked_suspensions as f64);
        read.suspended_bytes.set(snapshot.suspended_bytes as f64);
        read.queue_depth.set(snapshot.queued as f64);
        read.resident_states.set(snapshot.resident_states as f64);
        read.resident_state_bytes.set(snapshot.resident_state_bytes as f64);
        read.retired.set(snapshot.retired_threads as f64);
        read.retired_total.absolute(snapshot.retired_threads_total);
        read.arena_bytes.set(snapshot.arena_bytes as f64);
        for (gauge, (_, holds)) in read.walls.iter().zip(snapshot.walls.parts()) {
            gauge.set(f64::from(u8::from(holds)));
        }
    }
}

fn describe() {
    describe_counter!(EXECUTIONS_TOTAL, "Segments answered: success and error end an execution, suspended does not");
    describe_histogram!(EXECUTION_DURATION_SECONDS, "Time of ended executions, without the time they were suspended");
    describe_histogram!(EXECUTION_TIME_US, "The same in microseconds, with quantiles since the start of the sidecar");
    describe_gauge!(CACHE_HIT_RATE, "Part of the compilations that the cache answered, 0 to 1");
    describe_counter!(CACHE_HITS_TOTAL, "Handlers found compiled");
    describe_counter!(CACHE_MISSES_TOTAL, "Handlers that had to be compiled");
    describe_counter!(
        CACHE_REJECTED_TOTAL,
        "Entries of the disk cache that were bad, foreign or old, and were removed"
    );
    describe_gauge!(CACHE_BYTES, "Bytes of compiled handlers by tier; of the disk, as far as this sidecar has looked");
    describe_gauge!(PEAK_MEMORY_BYTES, "Most memory that one execution has used since the start of the sidecar");
    describe_counter!(HOST_CALLS_TOTAL, "Calls out of the sandbox");
    describe_counter!(ERRORS_TOTAL, "Errors answered, by code");
    describe_gauge!(
        POOL_INSTANCES,
        "Instances by state; terminated, which goes with the next release, is nexus_instances_terminated_total"
    );
    describe_counter!(INSTANCES_TERMINATED_TOTAL, "Instances that were given up");
    describe_gauge!(CONNECTIONS, "Connections of clients");
    describe_gauge!(
        LIMIT,
        "How many there may be: instances that run, executions that wait or are suspended, connections"
    );
    describe_gauge!(BUILD_INFO, "Always 1; the labels say which build this is");
    describe_gauge!(
        SUSPENSIONS,
        "Suspensions that wait to be resumed, by whether their execution is in an instance or parked"
    );
    describe_gauge!(SUSPENDED_BYTES, "Memory of suspended executions: state, calls, guests or their parked images");
    describe_counter!(SUSPENSION_EVENTS_TOTAL, "What became of suspensions");
    describe_histogram!(RESET_DURATION_SECONDS, "Time to make an instance pristine again");
    describe_gauge!(RESIDENT_STATES, "States that clients have left with the sidecar");
    describe_gauge!(RESIDENT_STATE_BYTES, "Memory of resident states, with the versions that executions still read");
    describe_gauge!(RETIRED_THREADS, "Threads that got stuck, were replaced, and have not come back");
    describe_counter!(THREADS_RETIRED_TOTAL, "Threads that got stuck and were replaced");
    describe_gauge!(ARENA_BYTES, "Size of the shared memory segments of all connections");
    describe_gauge!(WALLS, "Whether a wall stands between guests and the machine, beside WebAssembly: 1 or 0");
    describe_gauge!(QUEUE_DEPTH, "Executions that wait for an instance");
    describe_counter!(CAPABILITY_VIOLATIONS_TOTAL, "Uses of a capability that was not granted");
}
