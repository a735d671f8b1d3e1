//! What the sidecar counts: the text is well formed, label sets are fixed, and sums are exact under concurrency.

use std::collections::BTreeMap;
use std::thread;

use nexus_protocol::ErrorCode;
use nexus_protocol::message::Status;
use nexus_tests::{Client, Options, Run, SOON, Watchdog, eventually};
use serde_json::json;

const CLIENTS: u64 = 8;
const ROUNDS: u64 = 25;

/// Type of each family, and every sample by its name with labels.
struct Metrics {
    types: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads the Prometheus text format, version 0.0.4, and panics on what breaks its rules.
fn parse(text: &str) -> Metrics {
    let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
    let mut family = String::new();
    assert!(text.ends_with('\n'), "the last line has an end");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(help.len() > 5, "{line}");
            name.clone_into(&mut family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert_eq!(name, family, "HELP and TYPE stand together");
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "a family is there once: {line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = series.split('{').next().unwrap_or_default();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(name == family || base == family, "a sample of another family: {line}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let inner =
                    labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).unwrap_or_else(|| panic!("{line}"));
                for label in inner.split(',') {
                    let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
                    assert!(!key.is_empty() && value.starts_with('"') && value.ends_with('"'), "{line}");
                }
            }
            let value: f64 =
                if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) };
            assert_eq!(samples.insert(series.to_owned(), value), None, "a series is there once: {line}");
        }
    }
    Metrics { types, samples }
}

impl Metrics {
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples.keys()))
    }

    fn sum(&self, family: &str) -> f64 {
        self.samples.iter().filter(|(series, _)| series.split('{').next() == Some(family)).map(|(_, value)| value).sum()
    }
}

#[test]
fn every_metric_of_the_contract_is_there_with_its_type() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = Options::new().child();
    let metrics = parse(&client.metrics());
    for (name, kind) in [
        ("nexus_handler_executions_total", "counter"),
        ("nexus_handler_execution_duration_seconds", "histogram"),
        ("nexus_handler_execution_time_us", "summary"),
        ("nexus_cache_hit_rate", "gauge"),
        ("nexus_cache_hits_total", "counter"),
        ("nexus_cache_misses_total", "counter"),
        ("nexus_cache_rejected_total", "counter"),
        ("nexus_peak_memory_bytes", "gauge"),
        ("nexus_host_calls_total", "counter"),
        ("nexus_errors_total", "counter"),
        ("nexus_pool_instances", "gauge"),
        ("nexus_suspensions", "gauge"),
        ("nexus_reset_duration_seconds", "histogram"),
        ("nexus_queue_depth", "gauge"),
        ("nexus_capability_violations_total", "counter"),
    ] {
        assert_eq!(metrics.types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for code in ErrorCode::ALL {
        metrics.value(&format!("nexus_errors_total{{code=\"{code}\"}}"));
    }
}

#[test]
fn handlers_cannot_add_series() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = Options::new().child();
    let before: Vec<String> = parse(&client.metrics()).samples.into_keys().collect();
    for n in 0..20 {
        let source = format!(
            "$emit('e{n}', 1); $log({n}); $view.focus('v{n}'); throw Object.assign(new Error('x'), {{ code: 'E{n}' }})"
        );
        client.run(Run::source(source).grant(&["events:emit:*", "view:update:*"]));
    }
    let after: Vec<String> = parse(&client.metrics()).samples.into_keys().collect();
    assert_eq!(before, after);
}

/// One client's round: 2 successes, 1 throw, 1 violation, 1 timeout, 1 that suspends once and is resumed.
fn round(client: &mut Client) {
    assert_eq!(client.run("$log(1); $log(2); return 1").value(), json!(1));
    assert_eq!(
        client.run(Run::source("return $state.k").state(&json!({"k": 2})).grant(&["state:read:k"])).value(),
        json!(2)
    );
    assert_eq!(client.run("throw new Error('x')").code(), ErrorCode::ExecutionError);
    assert_eq!(client.run("$emit('x', 1)").code(), ErrorCode::PermissionDenied);
    let segment = client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    assert_eq!(segment.status, Status::Suspended);
    let id = segment.call().id.clone();
    assert_eq!(client.resume(&id, &json!(3)).value(), json!(3));
}

#[test]
fn sums_are_exact_under_concurrency_and_gauges_come_back() {
    let _w = Watchdog::seconds(180);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let clients: Vec<_> = (0..CLIENTS).map(|_| sidecar.connect()).collect();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || (0..ROUNDS).for_each(|_| round(&mut client)));
        }
    });
    let mut client = sidecar.connect();
    client.run(Run::source("for (;;);").timeout_ms(30));
    let rounds = (CLIENTS * ROUNDS) as f64;
    eventually("every segment is counted", SOON, || {
        parse(&client.metrics()).sum("nexus_handler_executions_total") >= 6.0 * rounds + 1.0
    });
    let metrics = parse(&client.metrics());
    for (series, expected) in [
        ("nexus_handler_executions_total{status=\"success\"}", 3.0 * rounds),
        ("nexus_handler_executions_total{status=\"suspended\"}", rounds),
        ("nexus_handler_executions_total{status=\"error\"}", 2.0 * rounds + 1.0),
        ("nexus_handler_execution_duration_seconds_count", 5.0 * rounds + 1.0),
        ("nexus_handler_execution_time_us_count", 5.0 * rounds + 1.0),
        ("nexus_errors_total{code=\"EXECUTION_ERROR\"}", rounds),
        ("nexus_errors_total{code=\"PERMISSION_DENIED\"}", rounds),
        ("nexus_errors_total{code=\"TIMEOUT\"}", 1.0),
        ("nexus_capability_violations_total", rounds),
        ("nexus_host_calls_total{function=\"log\"}", 2.0 * rounds),
        ("nexus_host_calls_total{function=\"state_get\"}", rounds),
        ("nexus_host_calls_total{function=\"ext_call\"}", rounds),
        ("nexus_suspensions_total{event=\"created\"}", rounds),
        ("nexus_suspensions_total{event=\"resumed\"}", rounds),
    ] {
        assert_eq!(metrics.value(series), expected, "{series}");
    }
    assert_eq!(metrics.sum("nexus_errors_total"), 2.0 * rounds + 1.0);
    assert_eq!(metrics.sum("nexus_cache_hits_total") + metrics.sum("nexus_cache_misses_total"), 5.0 * rounds + 1.0);
    eventually("gauges come back", SOON, || {
        let metrics = parse(&client.metrics());
        let gauges = [
            "nexus_pool_instances{state=\"active\"}",
            "nexus_pool_instances{state=\"suspended\"}",
            "nexus_queue_depth",
        ];
        gauges.iter().all(|gauge| metrics.value(gauge) == 0.0) && metrics.sum("nexus_suspensions") == 0.0
    });
    let stats = client.stats();
    assert_eq!(stats.total_executions as f64, 5.0 * rounds + 1.0);
    assert!(stats.cache_hit_rate > 0.9 && stats.p50_execution_time_us <= stats.p99_execution_time_us, "{stats:?}");
}
