//! What a healthy connection feels of others: five hundred that are idle or send a byte a second, and one that asks for ten
//! times of what it may. Alone and in company take turns on one sidecar, so that whatever else the machine does meets both.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::ErrorCode;
use nexus_tests::bench::Sample;
use nexus_tests::client::Answer;
use nexus_tests::leaks::{LeakProbe, settled_counts};
use nexus_tests::{Client, Options, Run, Sidecar};
use serde_json::{Map, Value, json};

use crate::{Scale, summary};

const TURNS: usize = 10;
/// Of one turn.
const CALLS: usize = 1_000;
/// Half of them idle, half of them slow.
const SESSIONS: usize = 500;
const INSTANCES: usize = 2;
/// What one connection may have unanswered: what may run and what may wait.
const IN_FLIGHT: usize = 64;
const GREED: usize = 10;
/// What one connection keeps under way.
const BURNING: usize = 16;
/// Connections of new sources.
const COMPILING: usize = 4;
/// Connections of which each has an endless loop run, one after the other, beside default settings: as many as there are
/// instances, and six times as many.
const HOGS: [usize; 2] = [10, 60];
const HOG_SECONDS: usize = 15;
/// Connections of which nobody knows yet that each runs an endless loop, and how often they come.
const FRESH: usize = 60;
const FRESH_ROUNDS: usize = 10;

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let calls = scale.of(CALLS * TURNS) / TURNS;
    sessions(&mut figures, calls);
    greed(&mut figures, calls);
    beside_compilations(&mut figures, calls);
    beside_fib(&mut figures, calls);
    for hogs in HOGS {
        beside_hogs(&mut figures, hogs, scale.of(HOG_SECONDS));
    }
    beside_fresh_hogs(&mut figures, scale.of(FRESH_ROUNDS));
    beside_reconnecting_hogs(&mut figures, scale.of(HOG_SECONDS));
    figures
}

fn start() -> (Sidecar, Client) {
    let options = Options::new().patient().flag("log", "error").flag("max-instances", INSTANCES);
    let sidecar = options.flag("max-queued", IN_FLIGHT - INSTANCES).listen();
    let mut healthy = sidecar.connect();
    measure(&mut healthy, 200);
    (sidecar, healthy)
}

fn measure(healthy: &mut Client, calls: usize) -> Sample {
    let run = Run::source("return $args + 1").args(&json!(1));
    Sample::of(0, calls, || assert_eq!(healthy.run(run.clone()).value(), 2))
}

fn compare(figures: &mut Map<String, Value>, name: &str, alone: &Sample, among: &Sample) {
    for (which, sample) in [("Alone", alone), ("", among)] {
        figures.insert(format!("{name}{which}"), summary(sample));
    }
    ratios(figures, name, alone, among);
}

pub fn ratios(figures: &mut Map<String, Value>, name: &str, below: &Sample, above: &Sample) {
    let ratio = |of: fn(&Sample) -> f64| json!((of(above) / of(below) * 100.0).round() / 100.0);
    figures.insert(format!("{name}P50Ratio"), ratio(Sample::p50_us));
    figures.insert(format!("{name}P99Ratio"), ratio(Sample::p99_us));
}

fn sessions(figures: &mut Map<String, Value>, calls: usize) {
    let (sidecar, mut healthy) = start();
    let (mut alone, mut among) = (Sample::default(), Sample::default());
    let mut grown = 0;
    for turn in 0..TURNS {
        settled_counts(sidecar.pid());
        alone.extend(&measure(&mut healthy, calls));
        let before = LeakProbe::of(sidecar.pid()).rss_bytes;
        let mut others: Vec<Client> = (0..SESSIONS).map(|_| sidecar.connect()).collect();
        if turn == 0 {
            // later ones take what the first have given back
            grown = LeakProbe::of(sidecar.pid()).rss_bytes.saturating_sub(before) / SESSIONS as u64;
        }
        let (slow, _idle) = others.split_at_mut(SESSIONS / 2);
        // a frame of 200 bytes that never ends
        slow.iter_mut().for_each(|client| assert!(client.write_raw(&[200, 0, 0, 0])));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pause = Duration::from_secs(1) / slow.len() as u32;
                let mut next = 0;
                while !done.load(Ordering::Relaxed) {
                    slow[next].write_raw(&[0x93]);
                    next = (next + 1) % slow.len();
                    std::thread::sleep(pause);
                }
            });
            among.extend(&measure(&mut healthy, calls));
            done.store(true, Ordering::Relaxed);
        });
    }
    compare(figures, "among500Sessions", &alone, &among);
    figures.insert("rssPerSessionBytes".into(), json!(grown));
}

/// Alone, beside a connection that keeps as much under way as it may, and beside one that keeps ten times of it: on few cores
/// the second alone takes its share of them, so that the third is held against it as well.
fn greed(figures: &mut Map<String, Value>, calls: usize) {
    let (sidecar, mut healthy) = start();
    let (mut alone, mut beside_full, mut beside_greed) = (Sample::default(), Sample::default(), Sample::default());
    let mut answers = Answers::default();
    for _ in 0..TURNS {
        settled_counts(sidecar.pid());
        alone.extend(&measure(&mut healthy, calls));
        for (under_way, sample) in [(IN_FLIGHT, &mut beside_full), (IN_FLIGHT * GREED, &mut beside_greed)] {
            let done = AtomicBool::new(false);
            let connected = sidecar.connect();
            let of_turn = std::thread::scope(|scope| {
                let flood = scope.spawn(|| flood(connected, under_way, &done));
                std::thread::sleep(Duration::from_millis(50));
                sample.extend(&measure(&mut healthy, calls));
                done.store(true, Ordering::Relaxed);
                flood.join().expect("a flood that ends")
            });
            if under_way > IN_FLIGHT {
                answers.refused += of_turn.refused;
                answers.served += of_turn.served;
            }
        }
    }
    compare(figures, "besideFull", &alone, &beside_full);
    compare(figures, "besideGreed", &alone, &beside_greed);
    ratios(figures, "greedToFull", &beside_full, &beside_greed);
    figures.insert("greedyRefused".into(), json!(answers.refused));
    figures.insert("greedyServed".into(), json!(answers.served));
}

#[derive(Default)]
struct Answers {
    refused: u64,
    served: u64,
}

/// Keeps so many requests under way until it is told to end.
fn flood(mut greedy: Client, most: usize, done: &AtomicBool) -> Answers {
    let run = Run::source("let n = 0; for (let i = 0; i < 2000; i++) n += i; return n");
    let (mut answers, mut under_way) = (Answers::default(), 0);
    while under_way > 0 || !done.load(Ordering::Relaxed) {
        while under_way < most && !done.load(Ordering::Relaxed) {
            greedy.start(run.clone());
            under_way += 1;
        }
        let Some(reply) = greedy.next_reply() else { break };
        let code = match &reply.answer {
            Answer::Error(error) => Some(error.code),
            Answer::Result(segment) => segment.error.as_ref().map(|error| error.code),
            other => panic!("{other:?}"),
        };
        under_way -= 1;
        match code {
            None => answers.served += 1,
            Some(ErrorCode::Overloaded) => answers.refused += 1,
            Some(other) => panic!("{other:?}"),
        }
    }
    answers
}

/// Beside one connection that keeps sixteen recursions under way, each of which takes a processor for some tenths of a second.
/// All settings are the defaults.
fn beside_fib(figures: &mut Map<String, Value>, calls: usize) {
    let sidecar = Options::new().flag("log", "error").listen();
    let mut innocent = sidecar.connect();
    measure(&mut innocent, 200);
    let (mut alone, mut beside) = (Sample::default(), Sample::default());
    for _ in 0..TURNS {
        settled_counts(sidecar.pid());
        alone.extend(&measure(&mut innocent, calls));
        let (done, connected) = (AtomicBool::new(false), sidecar.connect());
        std::thread::scope(|scope| {
            let burn = scope.spawn(|| burn(connected, &done));
            std::thread::sleep(Duration::from_millis(50));
            beside.extend(&measure(&mut innocent, calls));
            done.store(true, Ordering::Relaxed);
            burn.join().expect("an end");
        });
    }
    compare(figures, "besideFib", &alone, &beside);
}

/// Beside four connections each of which keeps sixteen requests under way that all bring a source that nobody has seen yet. All settings
/// are the defaults. A ping takes turns with the handler.
fn beside_compilations(figures: &mut Map<String, Value>, calls: usize) {
    let sidecar = Options::new().flag("log", "error").listen();
    let mut innocent = sidecar.connect();
    measure(&mut innocent, 200);
    let mut samples: [Sample; 4] = Default::default();
    let sources = AtomicUsize::new(0);
    for _ in 0..TURNS {
        settled_counts(sidecar.pid());
        let [alone, beside, ping_alone, ping_beside] = &mut samples;
        alone.extend(&measure(&mut innocent, calls));
        ping_alone.extend(&Sample::of(0, calls, || innocent.ping()));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..COMPILING {
                let (client, done, sources) = (sidecar.connect(), &done, &sources);
                scope.spawn(move || compile(client, done, sources));
            }
            std::thread::sleep(Duration::from_millis(200));
            beside.extend(&measure(&mut innocent, calls));
            ping_beside.extend(&Sample::of(0, calls, || innocent.ping()));
            done.store(true, Ordering::Relaxed);
        });
    }
    let [alone, beside, ping_alone, ping_beside] = &samples;
    compare(figures, "besideCompilations", alone, beside);
    compare(figures, "pingBesideCompilations", ping_alone, ping_beside);
    figures.insert("sourcesCompiledBeside".into(), json!(sources.load(Ordering::Relaxed)));
}

fn compile(mut client: Client, done: &AtomicBool, sources: &AtomicUsize) {
    let next = || Run::source(format!("return {} + $args", sources.fetch_add(1, Ordering::Relaxed))).args(&json!(1));
    for _ in 0..BURNING {
        client.start(next());
    }
    let mut under_way = BURNING;
    while under_way > 0 {
        let Some(reply) = client.next_reply() else { return };
        assert!(matches!(reply.answer, Answer::Result(_)), "{reply:?}");
        if done.load(Ordering::Relaxed) {
            under_way -= 1;
        } else {
            client.start(next());
        }
    }
}

fn burn(mut client: Client, done: &AtomicBool) {
    let fib = Run::source("const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2); return fib(30)");
    for _ in 0..BURNING {
        client.start(fib.clone());
    }
    let mut under_way = BURNING;
    while under_way > 0 {
        let Some(reply) = client.next_reply() else { return };
        assert!(matches!(reply.answer, Answer::Result(_)), "{reply:?}");
        if done.load(Ordering::Relaxed) {
            under_way -= 1;
        } else {
            client.start(fib.clone());
        }
    }
}

/// What whoever comes then has to wait, from hello to the answer of a tiny handler. By then each of the others has shown what its
/// runs are like.
fn beside_hogs(figures: &mut Map<String, Value>, hogs: usize, seconds: usize) {
    let sidecar = Options::new().flag("log", "error").listen();
    let (done, known) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut crowd: Vec<Client> = (0..hogs).map(|_| sidecar.connect()).collect();
    let endless = || Run::source("for (;;);").timeout_ms(1_000);
    let taken = std::thread::scope(|scope| {
        for hog in &mut crowd {
            let (done, known) = (&done, &known);
            scope.spawn(move || {
                let mut is_known = false;
                while !done.load(Ordering::Relaxed) {
                    // some are over before they have an instance
                    let segment = hog.run(endless());
                    if segment.duration_us > segment.queue_us + 200_000 && !std::mem::replace(&mut is_known, true) {
                        known.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while known.load(Ordering::Relaxed) < hogs {
            std::thread::sleep(Duration::from_millis(20));
        }
        let taken = newcomers(&sidecar, seconds);
        done.store(true, Ordering::Relaxed);
        taken
    });
    figures.insert(format!("newcomerBeside{hogs}Hogs"), summary(&Sample::from(taken)));
}

/// One after the other for so long, and what each has to wait.
fn newcomers(sidecar: &Sidecar, seconds: usize) -> Vec<Duration> {
    let mut taken = Vec::new();
    let until = Instant::now() + Duration::from_secs(seconds as u64);
    while Instant::now() < until {
        taken.push(newcomer(sidecar));
        std::thread::sleep(Duration::from_millis(20));
    }
    taken
}

fn newcomer(sidecar: &Sidecar) -> Duration {
    let started = Instant::now();
    sidecar.connect().still_works();
    started.elapsed()
}

/// As above, when all of the others have come a moment ago and begin their first loop.
fn beside_fresh_hogs(figures: &mut Map<String, Value>, rounds: usize) {
    let sidecar = Options::new().flag("log", "error").listen();
    let taken: Vec<Duration> = (0..rounds)
        .map(|_| {
            let mut crowd: Vec<Client> = (0..FRESH).map(|_| sidecar.connect()).collect();
            crowd.iter_mut().for_each(|hog| {
                hog.start(Run::source("for (;;);").timeout_ms(5_000));
            });
            crowd.iter_mut().for_each(Client::ping);
            let took = newcomer(&sidecar);
            drop(crowd);
            std::thread::sleep(Duration::from_millis(500));
            took
        })
        .collect();
    figures.insert(format!("newcomerBeside{FRESH}FreshHogs"), summary(&Sample::from(taken)));
}

/// As above, when each of the others has a connection for each loop.
fn beside_reconnecting_hogs(figures: &mut Map<String, Value>, seconds: usize) {
    let hogs = HOGS[0] * 2;
    let sidecar = Options::new().flag("log", "error").listen();
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        for _ in 0..hogs {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sidecar.connect().run(Run::source("for (;;);").timeout_ms(1_000));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let taken = newcomers(&sidecar, seconds);
        done.store(true, Ordering::Relaxed);
        taken
    });
    figures.insert(format!("newcomerBeside{hogs}ReconnectingHogs"), summary(&Sample::from(taken)));
}
