//! What is counted, and who is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Stats;

use super::histogram::LogLinear;
use super::metrics::{self, Handles};
use super::registry::Registry;
use super::snapshot::Snapshot;

/// How a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Success,
    Suspended,
    Error,
}

/// What happened to one suspension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspensionEvent {
    Created,
    Resumed,
    Expired,
    Cancelled,
    /// A resume of a suspension that is unknown, used, expired or foreign.
    Refused,
    /// The execution gave its instance up.
    Parked,
    /// A parked execution was resumed.
    Unparked,
}

/// One answered segment: what an execution did since the segment before.
#[derive(Debug, Clone, Copy)]
pub struct SegmentRecord<'a> {
    pub status: Status,
    /// Of the whole execution so far, without suspended time; counted when the execution ends.
    pub duration: Duration,
    /// Index of the host function, and how often this segment called it.
    pub host_calls: &'a [(u8, u32)],
    /// With [`Status::Error`].
    pub error: Option<ErrorCode>,
    pub memory_peak_bytes: u64,
    pub capability_violations: u32,
}

#[derive(Debug)]
pub struct Observer {
    registry: Registry,
    handles: Handles,
    times: Arc<LogLinear>,
    memory_peak_bytes: AtomicU64,
    started: Instant,
}

impl Observer {
    /// `host_functions`: the names behind the indices of [`SegmentRecord::host_calls`].
    pub fn new(host_functions: &[&'static str]) -> Self {
        let registry = Registry::new(metrics::SHAPES);
        let handles = Handles::new(&registry, host_functions);
        let times = registry.quantiles(metrics::EXECUTION_TIME_US).unwrap_or_default();
        Self { registry, handles, times, memory_peak_bytes: AtomicU64::new(0), started: Instant::now() }
    }

    pub fn record_segment(&self, record: &SegmentRecord<'_>) {
        let handles = &self.handles;
        if let Some(counter) = handles.executions.get(record.status as usize) {
            counter.increment(1);
        }
        match record.status {
            Status::Suspended => {}
            Status::Success | Status::Error => {
                let seconds = record.duration.as_secs_f64();
                handles.duration.record(seconds);
                handles.time.record(seconds * 1e6);
            }
        }
        for (function, calls) in record.host_calls {
            if let Some(counter) = handles.host_calls.get(usize::from(*function)) {
                counter.increment(u64::from(*calls));
            }
        }
        if let Some(code) = record.error {
            self.record_error(code);
        }
        if record.capability_violations > 0 {
            handles.violations.increment(u64::from(record.capability_violations));
        }
        // Nearly every execution stays below the peak, and a load is cheaper than a write to a shared line.
        if record.memory_peak_bytes > self.memory_peak_bytes.load(Relaxed) {
            self.memory_peak_bytes.fetch_max(record.memory_peak_bytes, Relaxed);
        }
    }

    /// An error that was answered without a segment, such as a frame that makes no sense.
    pub fn record_error(&self, code: ErrorCode) {
        let index = ErrorCode::ALL.iter().position(|other| *other == code);
        if let Some(counter) = index.and_then(|index| self.handles.errors.get(index)) {
            counter.increment(1);
        }
    }

    pub fn record_reset(&self, duration: Duration) {
        self.handles.reset.record(duration.as_secs_f64());
    }

    pub fn record_suspension(&self, event: SuspensionEvent) {
        if let Some(counter) = self.handles.suspensions.get(event as usize) {
            counter.increment(1);
        }
    }

    /// Times are those of ended executions since start.
    pub fn stats(&self, snapshot: &Snapshot) -> Stats {
        let times = self.times.summary();
        let micros = |fraction| u64::try_from(times.quantile(fraction).as_micros()).unwrap_or(u64::MAX);
        Stats {
            total_executions: times.count(),
            active_instances: snapshot.active_instances,
            available_instances: snapshot.available_instances,
            suspended_instances: snapshot.suspended_instances,
            cache_hit_rate: snapshot.cache_hit_rate(),
            avg_execution_time_us: times.mean().as_nanos() as f64 / 1e3,
            p50_execution_time_us: micros(0.5),
            p95_execution_time_us: micros(0.95),
            p99_execution_time_us: micros(0.99),
            total_memory_bytes: snapshot.total_memory_bytes,
            instances_created: snapshot.instances_created,
            instances_reused: snapshot.instances_reused,
            cache_entries: snapshot.cache_entries,
            cache_size_bytes: snapshot.cache_size_bytes,
            queued: snapshot.queued,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            resident_states: snapshot.resident_states,
            resident_state_bytes: snapshot.resident_state_bytes,
            arena_bytes: snapshot.arena_bytes,
            cache_disk_bytes: snapshot.cache_disk_bytes,
            cache_rejected: snapshot.cache_rejected,
        }
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self, snapshot: &Snapshot) -> String {
        self.handles.set(snapshot, self.memory_peak_bytes.load(Relaxed));
        self.registry.render()
    }
}

impl Status {
    /// In the order of the variants.
    pub(crate) const ALL: [Self; 3] = [Self::Success, Self::Suspended, Self::Error];

    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Suspended => "suspended",
            Self::Error => "error",
        }
    }
}

impl SuspensionEvent {
    /// In the order of the variants.
    pub(crate) const ALL: [Self; 7] =
        [Self::Created, Self::Resumed, Self::Expired, Self::Cancelled, Self::Refused, Self::Parked, Self::Unparked];

    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Resumed => "resumed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Parked => "parked",
            Self::Unparked => "unparked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: &[&str] = &["state_get", "state_set", "log"];

    fn segment(status: Status, micros: u64) -> SegmentRecord<'static> {
        SegmentRecord {
            status,
            duration: Duration::from_micros(micros),
            host_calls: &[(0, 2), (2, 1)],
            error: None,
            memory_peak_bytes: 1000,
            capability_violations: 0,
        }
    }

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().expect("a number")
    }

    #[test]
    fn an_execution_is_counted_once_however_often_it_suspends() {
        let observer = Observer::new(FUNCTIONS);
        observer.record_segment(&segment(Status::Suspended, 40));
        observer.record_segment(&segment(Status::Suspended, 70));
        observer.record_segment(&segment(Status::Success, 100));
        let stats = observer.stats(&Snapshot::default());
        assert_eq!((stats.total_executions, stats.avg_execution_time_us), (1, 100.0));
        assert!((98..=102).contains(&stats.p99_execution_time_us), "{stats:?}");
        let text = observer.prometheus(&Snapshot::default());
        assert_eq!(value(&text, "nexus_handler_executions_total{status=\"suspended\"}"), 2.0);
        assert_eq!(value(&text, "nexus_handler_executions_total{status=\"success\"}"), 1.0);
        assert_eq!(value(&text, "nexus_handler_execution_duration_seconds_count"), 1.0);
        assert_eq!(value(&text, "nexus_host_calls_total{function=\"state_get\"}"), 6.0);
        assert_eq!(value(&text, "nexus_host_calls_total{function=\"state_set\"}"), 0.0);
    }

    #[test]
    fn errors_violations_and_the_memory_peak_are_counted() {
        let observer = Observer::new(FUNCTIONS);
        observer.record_segment(&SegmentRecord {
            error: Some(ErrorCode::PermissionDenied),
            capability_violations: 2,
            memory_peak_bytes: 5000,
            ..segment(Status::Error, 10)
        });
        observer.record_segment(&segment(Status::Success, 10));
        observer.record_error(ErrorCode::ProtocolError);
        let text = observer.prometheus(&Snapshot::default());
        assert_eq!(value(&text, "nexus_errors_total{code=\"PERMISSION_DENIED\"}"), 1.0);
        assert_eq!(value(&text, "nexus_errors_total{code=\"PROTOCOL_ERROR\"}"), 1.0);
        assert_eq!(value(&text, "nexus_errors_total{code=\"TIMEOUT\"}"), 0.0);
        assert_eq!(value(&text, "nexus_capability_violations_total"), 2.0);
        assert_eq!(value(&text, "nexus_peak_memory_bytes"), 5000.0);
    }

    #[test]
    fn a_snapshot_reaches_stats_and_metrics() {
        let observer = Observer::new(FUNCTIONS);
        let mut snapshot = Snapshot {
            active_instances: 3,
            available_instances: 4,
            suspended_instances: 5,
            parked_executions: 2,
            terminated_instances: 6,
            suspensions: 7,
            parked_suspensions: 3,
            suspended_bytes: 4000,
            queued: 8,
            cache_hits: 9,
            cache_misses: 3,
            cache_rejected: 1,
            cache_size_bytes: 500,
            cache_disk_bytes: 8192,
            resident_states: 2,
            resident_state_bytes: 4096,
            arena_bytes: 1024,
            ..Snapshot::default()
        };
        let stats = observer.stats(&snapshot);
        assert_eq!((stats.active_instances, stats.queued, stats.cache_hit_rate), (3, 8, 0.75));
        assert_eq!((stats.cache_size_bytes, stats.cache_disk_bytes, stats.cache_rejected), (500, 8192, 1));
        let text = observer.prometheus(&snapshot);
        for (series, expected) in [
            ("nexus_pool_instances{state=\"active\"}", 3.0),
            ("nexus_pool_instances{state=\"available\"}", 4.0),
            ("nexus_pool_instances{state=\"suspended\"}", 3.0),
            ("nexus_pool_instances{state=\"terminated\"}", 6.0),
            ("nexus_suspensions{state=\"live\"}", 4.0),
            ("nexus_suspensions{state=\"parked\"}", 3.0),
            ("nexus_suspended_bytes", 4000.0),
            ("nexus_queue_depth", 8.0),
            ("nexus_cache_hits_total", 9.0),
            ("nexus_cache_misses_total", 3.0),
            ("nexus_cache_rejected_total", 1.0),
            ("nexus_cache_hit_rate", 0.75),
            ("nexus_cache_bytes{tier=\"memory\"}", 500.0),
            ("nexus_cache_bytes{tier=\"disk\"}", 8192.0),
            ("nexus_resident_states", 2.0),
            ("nexus_resident_state_bytes", 4096.0),
            ("nexus_arena_bytes", 1024.0),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        snapshot.active_instances = 0;
        assert_eq!(value(&observer.prometheus(&snapshot), "nexus_pool_instances{state=\"active\"}"), 0.0);
    }

    #[test]
    fn resets_and_suspensions_are_counted() {
        let observer = Observer::new(FUNCTIONS);
        observer.record_reset(Duration::from_micros(12));
        observer.record_suspension(SuspensionEvent::Created);
        observer.record_suspension(SuspensionEvent::Refused);
        let text = observer.prometheus(&Snapshot::default());
        assert_eq!(value(&text, "nexus_reset_duration_seconds_bucket{le=\"0.00001\"}"), 0.0);
        assert_eq!(value(&text, "nexus_reset_duration_seconds_bucket{le=\"0.00002\"}"), 1.0);
        assert_eq!(value(&text, "nexus_suspensions_total{event=\"created\"}"), 1.0);
        assert_eq!(value(&text, "nexus_suspension_events_total{event=\"refused\"}"), 1.0);
        assert_eq!(value(&text, "nexus_suspensions_total{event=\"refused\"}"), 1.0);
    }

    #[test]
    fn every_metric_is_there_from_the_start_and_described() {
        let text = Observer::new(FUNCTIONS).prometheus(&Snapshot::default());
        for name in [
            metrics::EXECUTIONS_TOTAL,
            metrics::EXECUTION_DURATION_SECONDS,
            metrics::EXECUTION_TIME_US,
            metrics::CACHE_HIT_RATE,
            metrics::CACHE_HITS_TOTAL,
            metrics::CACHE_MISSES_TOTAL,
            metrics::CACHE_REJECTED_TOTAL,
            metrics::CACHE_BYTES,
            metrics::PEAK_MEMORY_BYTES,
            metrics::HOST_CALLS_TOTAL,
            metrics::ERRORS_TOTAL,
            metrics::POOL_INSTANCES,
            metrics::SUSPENSIONS,
            metrics::SUSPENDED_BYTES,
            metrics::SUSPENSION_EVENTS_TOTAL,
            metrics::FORMER[0].0,
            metrics::FORMER[1].0,
            metrics::INSTANCES_TERMINATED_TOTAL,
            metrics::CONNECTIONS,
            metrics::LIMIT,
            metrics::BUILD_INFO,
            metrics::RESET_DURATION_SECONDS,
            metrics::QUEUE_DEPTH,
            metrics::CAPABILITY_VIOLATIONS_TOTAL,
            metrics::RESIDENT_STATES,
            metrics::RESIDENT_STATE_BYTES,
            metrics::RETIRED_THREADS,
            metrics::THREADS_RETIRED_TOTAL,
            metrics::ARENA_BYTES,
        ] {
            let help = text.lines().find(|line| line.starts_with(&format!("# HELP {name} ")));
            assert!(help.is_some_and(|line| line.len() > name.len() + 10), "{name}");
        }
    }

    #[test]
    fn an_index_that_no_function_has_is_ignored() {
        let observer = Observer::new(FUNCTIONS);
        observer.record_segment(&SegmentRecord { host_calls: &[(200, 1)], ..segment(Status::Success, 1) });
        assert!(!observer.prometheus(&Snapshot::default()).contains("200"));
    }

    #[test]
    fn indices_of_the_enums_follow_their_lists() {
        assert!(Status::ALL.iter().enumerate().all(|(index, status)| *status as usize == index));
        assert!(SuspensionEvent::ALL.iter().enumerate().all(|(index, event)| *event as usize == index));
    }
}
