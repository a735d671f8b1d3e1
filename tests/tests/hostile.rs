//! Every handler of `handlers/hostile`, in random order, each followed by a benign one on the same instance.
//!
//! A file says in its head what may come of it: `// expect: TIMEOUT | EXECUTION_ERROR RangeError | success`, and with
//! `// grant: TOKEN TOKEN..` what it is granted.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::message::Status;
use nexus_tests::leaks::settled_counts;
use nexus_tests::{Client, Options, Rng, Run, Segment, Sidecar, Watchdog, eventually};
use serde_json::json;

/// `NEXUS_HOSTILE_SEED` chooses another order.
const SEED: u64 = 0x0b5e_55ed;
/// Of handlers that are to be stopped by it.
const TIMEOUT_MS: u64 = 150;
/// Of handlers that end in another way, which takes as long as it takes.
const LONG_TIMEOUT_MS: u64 = 20_000;
/// Of the deadline, with a machine that does other things too.
const OVERRUN: Duration = Duration::from_millis(1500);

fn seed() -> u64 {
    std::env::var("NEXUS_HOSTILE_SEED").map_or(SEED, |seed| seed.parse().expect("a number"))
}

struct Hostile {
    name: String,
    source: String,
    expected: Vec<String>,
    grants: Vec<String>,
}

fn corpus() -> Vec<Hostile> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("handlers/hostile");
    let mut all: Vec<Hostile> =
        fs::read_dir(&dir).expect("handlers/hostile").map(|entry| read(&entry.unwrap().path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 40, "{}", all.len());
    all
}

fn read(path: &Path) -> Hostile {
    let source = fs::read_to_string(path).unwrap();
    let head = |key: &str| source.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let words = |text: &str, separator: &str| -> Vec<String> {
        text.split(separator).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let expected = words(head("// expect:"), "|");
    assert!(!expected.is_empty(), "{} does not say what is expected", path.display());
    let grants = words(head("// grant:"), " ");
    Hostile { name: path.file_stem().unwrap().to_string_lossy().into_owned(), expected, grants, source }
}

/// What came of it, in the words of the files.
fn outcome(segment: &Segment) -> (String, String) {
    match (&segment.status, &segment.error) {
        (Status::Success, _) => ("success".into(), String::new()),
        (Status::Suspended, _) => ("suspended".into(), String::new()),
        (_, Some(error)) => (
            error.code.as_str().into(),
            format!("{} {}", error.code.as_str(), error.name.as_deref().unwrap_or_default()),
        ),
        (_, None) => panic!("{segment:?}"),
    }
}

/// Runs one; a word when it is not as expected.
fn attack(client: &mut Client, hostile: &Hostile) -> Option<String> {
    let grants: Vec<&str> = hostile.grants.iter().map(String::as_str).collect();
    let timeout_ms = if hostile.expected.iter().any(|e| e == "TIMEOUT") { TIMEOUT_MS } else { LONG_TIMEOUT_MS };
    // shown when the test fails: the last one is the one that did it
    println!("{}", hostile.name);
    let started = Instant::now();
    let segment = client.run(Run::source(&*hostile.source).grant(&grants).timeout_ms(timeout_ms));
    let took = started.elapsed();
    let (code, named) = outcome(&segment);
    if !hostile.expected.iter().any(|e| *e == code || *e == named) {
        return Some(format!("{}: expected {:?}, got {code}: {:?}", hostile.name, hostile.expected, segment.error));
    }
    (took > Duration::from_millis(timeout_ms) + OVERRUN).then(|| format!("{}: took {took:?}", hostile.name))
}

fn benign(client: &mut Client) {
    let source = "const xs = [3, 1, 2].sort().map(x => x * $args.k); $state.sum = xs.reduce((a, b) => a + b); return JSON.stringify(xs)";
    let run = Run::source(source).args(&json!({"k": 2})).state(&json!({"sum": 0})).grant(&["state:write:sum"]);
    let segment = client.run(run);
    assert_eq!(segment.value(), "[2,4,6]");
    assert_eq!(segment.mutations, json!([{"op": "set", "key": "sum", "value": 12}]));
}

fn quiet(sidecar: &Sidecar, client: &mut Client) -> (usize, usize) {
    eventually("all is quiet", Duration::from_secs(10), || {
        let stats = client.stats();
        (stats.active_instances, stats.queued, stats.suspended_instances) == (0, 0, 0)
    });
    settled_counts(sidecar.pid())
}

#[test]
fn hostile_handlers_end_as_expected_and_harm_nobody() {
    let _w = Watchdog::seconds(150);
    let mut sidecar = Options::new().flag("max-instances", 1).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
    let mut client = sidecar.connect();
    benign(&mut client);
    let mut corpus = corpus();
    // whatever is made once, on first use, is made
    attack(&mut client, &corpus[0]);
    let before = quiet(&sidecar, &mut client);
    Rng::new(seed()).shuffle(&mut corpus);
    let mut wrong = Vec::new();
    for hostile in &corpus {
        wrong.extend(attack(&mut client, hostile));
        benign(&mut client);
    }
    assert!(sidecar.is_running());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), corpus.len(), wrong.join("\n"));
    assert_eq!(quiet(&sidecar, &mut client), before, "descriptors, threads");
    assert_eq!(sidecar.stdout(), "");
}

#[test]
fn hostile_handlers_beside_benign_ones() {
    let _w = Watchdog::seconds(150);
    let mut sidecar = Options::new().flag("max-instances", 3).flag("timeout-ms", LONG_TIMEOUT_MS).listen();
    let mut corpus = corpus();
    Rng::new(seed() + 1).shuffle(&mut corpus);
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
                    half.iter().for_each(|h| drop(attack(&mut client, h)));
                })
            })
            .collect();
        for thread in bad {
            thread.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(good.join().unwrap() > 100);
    });
    assert!(sidecar.is_running());
}
