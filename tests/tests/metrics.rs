//! What the sidecar counts: the text is well formed, label sets are fixed, and sums are exact under concurrency.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nexus_protocol::ErrorCode;
use nexus_protocol::limits::METRICS_TEXTFILE_MS;
use nexus_protocol::message::Status;
use nexus_tests::temp::TempDir;
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
        ("nexus_suspension_events_total{event=\"created\"}", rounds),
        ("nexus_suspensions_total{event=\"created\"}", rounds),
        ("nexus_suspension_events_total{event=\"resumed\"}", rounds),
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

/// Over HTTP, in a form that is asked for.
fn scraped(http: &Path, accept: &str) -> String {
    let mut stream = UnixStream::connect(http).unwrap();
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("Content-Type: {accept};")), "{head}");
    body.to_owned()
}

fn with_http() -> (nexus_tests::Sidecar, PathBuf, TempDir) {
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = Options::new().flag("http-listen", http.display()).listen_on(&dir.join("s.sock"));
    sidecar.wait_until_ready();
    round(&mut sidecar.connect());
    (sidecar, http, dir)
}

#[test]
fn parsers_of_others_read_both_forms_and_no_family_has_two_types() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, http, _dir) = with_http();
    let text = scraped(&http, "text/plain");
    let plain = openmetrics_parser::prometheus::parse_prometheus(&text).unwrap_or_else(|e| panic!("{e:?}"));
    let text = scraped(&http, "application/openmetrics-text");
    let open = openmetrics_parser::openmetrics::parse_openmetrics(&text).unwrap_or_else(|e| panic!("{e:?}"));
    // names of before are told to those who read the older form alone
    assert_eq!(plain.families.len(), open.families.len() + 2);
    for family in ["nexus_suspensions", "nexus_suspension_events", "nexus_retired_threads", "nexus_threads_retired"] {
        assert!(open.families.contains_key(family), "{family}");
    }
}

/// Names of metrics in a text, without the endings that a histogram's samples have.
fn named(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("nexus_") || word.starts_with("process_")).collect()
}

#[test]
fn the_dashboard_and_the_alerts_that_are_shipped_ask_for_what_there_is() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, http, _dir) = with_http();
    let metrics = parse(&scraped(&http, "text/plain"));
    let is_there = |name: &str| metrics.samples.keys().any(|series| series.split('{').next() == Some(name));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/deploy/monitoring");
    for (file, least) in [("dashboard.json", 20), ("alerts.yaml", 5)] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let names = named(&text);
        assert!(names.len() >= least, "{file} names {names:?}");
        for name in names {
            assert!(is_there(name), "{file} asks for {name}");
            assert!(!["nexus_suspensions_total", "nexus_retired_threads_total"].contains(&name), "{name} goes");
        }
        // and for labels that a series of that name has
        for (at, _) in text.match_indices("=\\\"").chain(text.match_indices("=\"")) {
            let key: String = text[..at].chars().rev().take_while(|c| c.is_ascii_lowercase()).collect();
            let key: String = key.chars().rev().collect();
            let value: String =
                text[at + 1..].trim_start_matches(['\\', '"']).chars().take_while(|c| !"\\\"".contains(*c)).collect();
            let label = format!("{key}=\"{value}\"");
            let known = ["job", "instance"].contains(&&*key) || metrics.samples.keys().any(|s| s.contains(&label));
            assert!(known, "{file}: no series has {label}");
        }
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.join("dashboard.json")).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 10);
}

#[test]
fn a_file_of_metrics_is_whole_whenever_it_is_read_and_written_again() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    let file = dir.join("nexus.prom");
    fs::write(&file, "# of before\n").unwrap();
    let sidecar = Options::new().flag("metrics-textfile", file.display()).listen_on(&dir.join("s.sock"));
    sidecar.wait_until_ready();
    round(&mut sidecar.connect());
    eventually("it is written, and whole whenever it is read", Duration::from_millis(3 * METRICS_TEXTFILE_MS), || {
        let text = fs::read_to_string(&file).unwrap();
        text != "# of before\n" && parse(&text).value("nexus_handler_executions_total{status=\"success\"}") >= 3.0
    });
    let metrics = parse(&fs::read_to_string(&file).unwrap());
    assert!(metrics.value("process_resident_memory_bytes") > 0.0);
    let beside = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".nexus.prom"));
    assert_eq!(beside.count(), 0, "nothing half written is left");
    let mut refused = Options::new().flag("metrics-textfile", "/nonexistent/x.prom").listen_on(&dir.join("t.sock"));
    assert_eq!(refused.exit_code(SOON), 3);
    assert!(refused.stderr().contains("metricsTextfile: cannot write /nonexistent/x.prom"), "{}", refused.stderr());
    let mut refused = Options::new().flag("metrics-textfile", dir.path().display()).listen_on(&dir.join("u.sock"));
    assert_eq!(refused.exit_code(SOON), 3);
    assert!(refused.stderr().contains("no regular file"), "{}", refused.stderr());
}

#[test]
fn a_log_for_programs_has_one_json_object_in_each_line() {
    let _w = Watchdog::seconds(60);
    let (sidecar, mut client) = Options::new().flag("log-json", true).child();
    client.run("$emit('x', 1)");
    eventually("the violation is in the log", SOON, || sidecar.stderr().contains("events:emit:x"));
    for line in sidecar.stderr().lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(["time", "level", "target", "pid", "message"].iter().all(|key| !record[key].is_null()), "{line}");
    }
}
