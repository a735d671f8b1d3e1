//! What instances and suspended executions take, and what a stranger learns from the time of a refusal.
//!
//! Memory is what the process has written to and shares with nobody: instances share the pages of their image that no handler
//! writes to, which the resident set size counts for each of them.

use std::time::{Duration, Instant};

use nexus_tests::bench::Sample;
use nexus_tests::leaks::{LeakProbe, private_bytes};
use nexus_tests::{Client, Options, Run, Sidecar, eventually};
use serde_json::{Map, Value, json};

use crate::{Scale, summary};

/// As many as keep their instance while they wait briefly.
const LIVE: u64 = 30;
const HELD: usize = 10_000;
const SOON: Duration = Duration::from_secs(60);

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    instances(&mut figures);
    parked(&mut figures, scale.of(HELD));
    refusals(&mut figures, scale.of(20_000));
    figures
}

fn options() -> Options {
    Options::new().patient().flag("log", "error")
}

fn suspend(client: &mut Client, number: usize) -> String {
    let run = Run::source("return [$args, await $ext.math.next($args)]").args(&json!(number)).grant(&["ext:math"]);
    client.run(run).call().id.clone()
}

fn resume(client: &mut Client, number: usize, id: &str) {
    assert_eq!(client.resume(id, &json!(7)).value(), json!([number, 7]));
}

/// A sidecar, and what it takes once it has run something.
fn start(options: &Options) -> (Sidecar, Client, u64) {
    let (sidecar, mut client) = options.child();
    let id = suspend(&mut client, 1);
    resume(&mut client, 1, &id);
    let private = private_bytes(sidecar.pid());
    (sidecar, client, private)
}

/// One instance against many: fresh, suspended, and idle after that.
fn instances(figures: &mut Map<String, Value>) {
    let options = options().flag("max-instances", LIVE);
    let (one, _client, base) = start(&options);
    figures.insert("privateWith1WarmInstanceBytes".into(), json!(base));
    figures.insert("rssWith1WarmInstanceBytes".into(), json!(LeakProbe::of(one.pid()).rss_bytes));
    let (sidecar, mut client, fresh) = start(&options.flag("min-instances", LIVE));
    let each = |private: u64| json!(private.saturating_sub(base) / (LIVE - 1));
    figures.insert("bytesPerFreshInstance".into(), each(fresh));
    let ids: Vec<String> = (0..LIVE as usize).map(|i| suspend(&mut client, i)).collect();
    figures.insert("bytesPerLiveSuspendedExecution".into(), each(private_bytes(sidecar.pid())));
    for (i, id) in ids.iter().enumerate() {
        resume(&mut client, i, id);
    }
    client.ping();
    figures.insert("bytesPerWarmInstance".into(), each(private_bytes(sidecar.pid())));
}

/// Many suspended executions in one sidecar; each is resumed and has to be right.
fn parked(figures: &mut Map<String, Value>, held: usize) {
    let options = options().flag("max-suspended", held);
    let (sidecar, mut client, before) = start(&options);
    let started = Instant::now();
    let ids: Vec<String> = (0..held).map(|i| suspend(&mut client, i)).collect();
    let suspending = started.elapsed();
    let mut all_parked = || {
        let text = client.metrics();
        text.lines().any(|line| line == format!("nexus_suspensions{{state=\"parked\"}} {held}"))
    };
    eventually("all are parked", SOON, &mut all_parked);
    // instances that were made for the rush are let go little by little
    std::thread::sleep(Duration::from_secs(2));
    let private = private_bytes(sidecar.pid());
    figures.insert("heldSuspended".into(), json!(held));
    figures.insert("rssWithHeldSuspendedBytes".into(), json!(LeakProbe::of(sidecar.pid()).rss_bytes));
    figures.insert("bytesPerParkedExecution".into(), json!(private.saturating_sub(before) / held as u64));
    let started = Instant::now();
    for (i, id) in ids.iter().enumerate() {
        resume(&mut client, i, id);
    }
    let each = |time: Duration| json!((time.as_secs_f64() * 1e7 / held as f64).round() / 10.0);
    figures.insert("suspendHeldUsEach".into(), each(suspending));
    figures.insert("resumeHeldUsEach".into(), each(started.elapsed()));
}

/// A foreign id and one that nobody has: the same answer, and in the same time.
fn refusals(figures: &mut Map<String, Value>, count: usize) {
    let sidecar = options().listen();
    let (mut owner, mut stranger) = (sidecar.connect(), sidecar.connect());
    let foreign = suspend(&mut owner, 1);
    let unknown = "00112233445566778899aabbccddeeff".to_owned();
    let used = suspend(&mut stranger, 2);
    resume(&mut stranger, 2, &used);
    let mut samples = [Sample::default(), Sample::default(), Sample::default()];
    // in turns, so that whatever else the machine does meets all of them
    for _ in 0..20 {
        for (id, sample) in [&foreign, &unknown, &used].into_iter().zip(&mut samples) {
            sample.extend(&Sample::of(10, count / 20, || {
                assert!(stranger.resume(id, &Value::Null).error.is_some());
            }));
        }
    }
    for (name, sample) in ["refusedForeign", "refusedUnknown", "refusedUsed"].into_iter().zip(samples) {
        figures.insert(name.into(), summary(&sample));
    }
    resume(&mut owner, 1, &foreign);
}
