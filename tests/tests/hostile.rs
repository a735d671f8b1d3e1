//! Every handler of `handlers/hostile`, alone and beside benign ones, in random order.

use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::limits::DEFAULT_MEMORY_LIMIT_BYTES;
use nexus_protocol::message::SuspendMode;
use nexus_tests::corpus::{Hostile, LONG_TIMEOUT_MS, corpus};
use nexus_tests::leaks::{LeakProbe, forget_peak_rss, peak_rss_bytes, settled_counts, until_complete};
use nexus_tests::{Client, Options, Rng, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

/// `NEXUS_HOSTILE_SEED` chooses another order.
const SEED: u64 = 0x0b5e_55ed;
/// Allocators keep an arena or two.
const SPARE_MAPS: usize = 16;
/// What an execution may take beside its guest's memory.
const BESIDE_THE_MEMORY: u64 = 16 << 20;
/// Random orders of the mixed run.
const ORDERS: u64 = 3;

fn seed() -> u64 {
    nexus_tests::number("NEXUS_HOSTILE_SEED", SEED)
}

/// Files of each style in one run of the tests; with `NEXUS_HOSTILE_ALL` it is all of them.
const SAMPLE: usize = 50;

fn shuffled(corpus: &[Hostile], seed: u64) -> Vec<Hostile> {
    let mut corpus = corpus.to_vec();
    Rng::new(seed).shuffle(&mut corpus);
    corpus
}

fn benign(client: &mut Client) {
    let source = "const xs = [3, 1, 2].sort().map(x => x * $args.k); $state.sum = xs.reduce((a, b) => a + b); return JSON.stringify(xs)";
    let run = Run::source(source).args(&json!({"k": 2})).state(&json!({"sum": 0})).grant(&["state:write:sum"]);
    let segment = client.run(run);
    assert_eq!(segment.value(), "[2,4,6]");
    assert_eq!(segment.mutations, json!([{"op": "set", "key": "sum", "value": 12}]));
}

/// Whatever is made once, on first use, is made: the engine for handlers that suspend with their whole stack, too.
fn warm(client: &mut Client) {
    benign(client);
    let call = client.run(Run::source("const v = $ext.a.b(1); return v").grant(&["ext:*"])).call().id.clone();
    assert_eq!(client.resume(&call, &json!(7)).value(), 7);
}

fn quiet(sidecar: &Sidecar, client: &mut Client) -> (usize, usize) {
    eventually("all is quiet", SOON, || {
        let stats = client.stats();
        (stats.active_instances, stats.queued, stats.suspended_instances) == (0, 0, 0)
    });
    settled_counts(sidecar.pid())
}

/// `NEXUS_HOSTILE_ONLY` names the files of interest, for whoever writes one.
fn chosen() -> Vec<Hostile> {
    let only = std::env::var("NEXUS_HOSTILE_ONLY").unwrap_or_default();
    corpus().into_iter().filter(|hostile| hostile.name.contains(&only)).collect()
}

#[test]
fn hostile_handlers_end_as_expected_and_harm_nobody() {
    let _w = Watchdog::seconds(600);
    let mut sidecar = Options::new().flag("max-instances", 1).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
    let mut client = sidecar.connect();
    warm(&mut client);
    let corpus = chosen();
    let before = quiet(&sidecar, &mut client);
    let mut wrong = Vec::new();
    for hostile in &shuffled(&corpus, seed()) {
        wrong.extend(hostile.attack(&mut client));
        benign(&mut client);
    }
    assert!(sidecar.is_running());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
    assert_eq!(quiet(&sidecar, &mut client), before, "descriptors, threads");
    assert_eq!(sidecar.stdout(), "");
}

#[test]
fn hostile_handlers_end_as_expected_in_either_style() {
    let _w = Watchdog::seconds(900);
    let mut sidecar = Options::new().flag("max-instances", 1).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
    let mut client = sidecar.connect();
    warm(&mut client);
    let all = chosen();
    let count = if std::env::var_os("NEXUS_HOSTILE_ALL").is_some() { all.len() } else { SAMPLE.min(all.len()) };
    let before = (quiet(&sidecar, &mut client), LeakProbe::of(sidecar.pid()).maps);
    let mut wrong = Vec::new();
    for (mode, seed) in [(SuspendMode::Await, seed() + 11), (SuspendMode::Stack, seed() + 12)] {
        for hostile in &shuffled(&all, seed)[..count] {
            wrong.extend(hostile.attack_in(&mut client, mode));
            warm(&mut client);
        }
    }
    assert!(sidecar.is_running());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * count, wrong.join("\n"));
    let counts = quiet(&sidecar, &mut client);
    let maps = LeakProbe::of(sidecar.pid()).maps;
    println!("{count} files in each style; maps {} before, {maps} after", before.1);
    assert_eq!(counts, before.0, "descriptors, threads");
    assert!(maps <= before.1 + SPARE_MAPS, "maps: {maps}, were {}", before.1);
    assert_eq!(sidecar.stdout(), "");
}

#[test]
fn memory_bombs_take_what_their_memory_may_and_little_more() {
    let _w = Watchdog::seconds(600);
    let mut wrong = Vec::new();
    for hostile in chosen().iter().filter(|hostile| hostile.row == "H5") {
        // a new one for each: allocators keep what the one before made them take
        let sidecar = Options::new().flag("max-instances", 1).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
        let mut client = sidecar.connect();
        warm(&mut client);
        until_complete(sidecar.pid());
        let base = LeakProbe::of(sidecar.pid()).rss_bytes;
        forget_peak_rss(sidecar.pid());
        drop(hostile.attack(&mut client));
        let more = peak_rss_bytes(sidecar.pid()).saturating_sub(base);
        benign(&mut client);
        println!("{:>8} KiB {}", more >> 10, hostile.name);
        if more > DEFAULT_MEMORY_LIMIT_BYTES + BESIDE_THE_MEMORY {
            wrong.push(format!("{}: {} KiB", hostile.name, more >> 10));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hostile_handlers_beside_benign_ones() {
    let _w = Watchdog::seconds(1200);
    let mut sidecar = Options::new().flag("max-instances", 3).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
    let corpus = chosen();
    let mut client = sidecar.connect();
    warm(&mut client);
    let before = quiet(&sidecar, &mut client);
    for order in 0..ORDERS {
        let corpus = shuffled(&corpus, seed() + 1 + order);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (sidecar, done) = (&sidecar, &done);
            let good = scope.spawn(move || {
                let mut client = sidecar.connect();
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    benign(&mut client);
                    count += 1;
                }
                count
            });
            let (left, right) = corpus.split_at(corpus.len() / 2);
            let bad: Vec<_> = [left, right]
                .into_iter()
                .map(|half| {
                    scope.spawn(move || {
                        let mut client = sidecar.connect();
                        // outcomes and times are the other test's matter: here three fight for two cores
                        half.iter().for_each(|hostile| drop(hostile.attack(&mut client)));
                    })
                })
                .collect();
            for thread in bad {
                thread.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(good.join().unwrap() > 50);
        });
        assert!(sidecar.is_running());
        assert_eq!(quiet(&sidecar, &mut client), before, "descriptors, threads after {} orders", order + 1);
    }
    assert_eq!(sidecar.stdout(), "");
}
