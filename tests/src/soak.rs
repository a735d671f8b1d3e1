//! A long, mixed load, and what it leaves: memory, descriptors, threads, maps, latency.
//!
//! Several connections run benign, failing, hostile, suspended, cancelled and abandoned executions from one seed. Each knows
//! which of its own it has cancelled: an end that is told to any other is wrong. The load pauses fifty times; when all is quiet
//! the sidecar is measured. The first tenth warms up and is not judged.

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use nexus_protocol::message::{Check, Status};
use nexus_protocol::{ClientMessage, ErrorCode};
use serde_json::json;

use crate::leaks::{LeakProbe, names_in_shm, settled_counts};
use crate::{Client, Options, Rng, Run, Sidecar, eventually};

const CONNECTIONS: usize = 4;
const ROUNDS: usize = 50;
/// Rounds that make the first and the last tenth.
const TENTH: usize = ROUNDS / 10;
/// Handlers that differ, so that the cache of compiled ones is at work.
const SOURCES: usize = 200;
/// Of each tier: full before the first tenth is over, since some of the sources are new.
const CACHE_BYTES: u64 = 256 << 10;
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// What RSS may grow by on a long run, whatever its length (RELIABILITY L2), and on a short one, in which caches still fill.
const MAX_GROWTH_BYTES: [f64; 2] = [(2 << 20) as f64, (6 << 20) as f64];
/// Of RSS, for each execution, on a run that is long enough to tell.
const MAX_SLOPE_BYTES: f64 = 0.5;
/// An allocator's arena is one mapping or several, as it grows; an instance that leaks is several for each.
const SPARE_MAPPINGS: usize = 8;
/// p99 of the last tenth in terms of the first.
const MAX_P99_RATIO: f64 = 1.1;
/// Shorter runs measure the machine's other work.
const LONG: usize = 100_000;

/// One quiet moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    executions: usize,
    probe: LeakProbe,
    segments: usize,
}

/// What a soak found.
#[derive(Debug)]
pub struct Report {
    pub executions: usize,
    pub took: Duration,
    pub first: LeakProbe,
    pub last: LeakProbe,
    pub shm: (usize, usize),
    /// Bytes of RSS for each execution, by least squares.
    pub slope: f64,
    pub p99_us: (u64, u64),
    pub benign: usize,
    /// Benign executions that failed, in words.
    pub wrong: Vec<String>,
}

impl Report {
    /// Thresholds that were not met.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.wrong.clone();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                failures.push(what)
            }
        };
        let growth = self.last.rss_bytes as f64 - self.first.rss_bytes as f64;
        let max_growth = MAX_GROWTH_BYTES[usize::from(self.executions < LONG)];
        expect(growth <= max_growth, format!("memory grew by {growth} bytes"));
        let allowed = MAX_SLOPE_BYTES.max(max_growth / self.executions as f64);
        expect(
            self.slope <= allowed,
            format!("memory grows by {:.2} bytes an execution, {allowed:.2} allowed", self.slope),
        );
        let counts = |probe: &LeakProbe| (probe.fds, probe.threads);
        expect(
            counts(&self.first) == counts(&self.last),
            format!("descriptors, threads: {:?} -> {:?}", self.first, self.last),
        );
        expect(
            self.last.maps <= self.first.maps + SPARE_MAPPINGS,
            format!("mappings: {} -> {}", self.first.maps, self.last.maps),
        );
        expect(self.shm.0 == self.shm.1, format!("/dev/shm: {:?}", self.shm));
        let ratio = self.p99_us.1 as f64 / self.p99_us.0 as f64;
        let is_steady = self.executions < LONG || ratio <= MAX_P99_RATIO;
        expect(is_steady, format!("p99 {} -> {} us", self.p99_us.0, self.p99_us.1));
        failures
    }

    pub fn print(&self) {
        let mib = |probe: &LeakProbe| probe.rss_bytes as f64 / (1 << 20) as f64;
        println!(
            "{} executions in {:.1} s, {} of them benign, {} of these failed",
            self.executions,
            self.took.as_secs_f64(),
            self.benign,
            self.wrong.len()
        );
        println!(
            "memory        {:.2} -> {:.2} MiB, {:.3} bytes an execution",
            mib(&self.first),
            mib(&self.last),
            self.slope
        );
        println!("descriptors   {} -> {}", self.first.fds, self.last.fds);
        println!("threads       {} -> {}", self.first.threads, self.last.threads);
        println!("mappings      {} -> {}", self.first.maps, self.last.maps);
        println!("/dev/shm      {} -> {}", self.shm.0, self.shm.1);
        println!("benign p99    {} -> {} us (first and last tenth)", self.p99_us.0, self.p99_us.1);
    }
}

/// Runs about `executions`.
pub fn run(executions: usize, seed: u64) -> Report {
    let sidecar = Options::new().patient().flag("max-instances", 2).flag("max-cache-size-bytes", CACHE_BYTES).listen();
    let mut observer = sidecar.connect();
    let per_round = executions.div_ceil(ROUNDS * CONNECTIONS);
    let shm_before = names_in_shm(sidecar.pid());
    let barrier = Barrier::new(CONNECTIONS + 1);
    // of each tenth that is compared
    let latencies: [Mutex<Vec<u64>>; 2] = Default::default();
    let (wrong, benign) = (Mutex::new(Vec::new()), Mutex::new(0));
    let (mut samples, mut last) = (Vec::new(), None);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let (sidecar, barrier, latencies, wrong, benign) = (&sidecar, &barrier, &latencies, &wrong, &benign);
            scope.spawn(move || {
                let rng = Rng::new(seed ^ ((number as u64 + 1) << 40));
                let mut load = Load { sidecar, client: sidecar.connect(), rng, taken: Vec::new(), wrong: Vec::new() };
                for round in 0..ROUNDS {
                    for _ in 0..per_round {
                        load.step();
                    }
                    let taken = std::mem::take(&mut load.taken);
                    *benign.lock().unwrap() += taken.len();
                    wrong.lock().unwrap().append(&mut load.wrong);
                    if (TENTH..2 * TENTH).contains(&round) {
                        latencies[0].lock().unwrap().extend(taken);
                    } else if round >= ROUNDS - TENTH {
                        latencies[1].lock().unwrap().extend(taken);
                    }
                    barrier.wait();
                    barrier.wait();
                }
            });
        }
        for round in 1..=ROUNDS {
            barrier.wait();
            if round == TENTH + 1 {
                // connections that went a moment ago are closed by then
                settled_counts(sidecar.pid());
            }
            samples.push(measure(&sidecar, &mut observer, round * per_round * CONNECTIONS));
            if round == ROUNDS {
                last = Some(settled(&sidecar, &samples[TENTH].probe));
            }
            barrier.wait();
        }
    });
    let took = started.elapsed();
    let judged = &samples[TENTH..];
    let p99 = |taken: &Mutex<Vec<u64>>| percentile_99(&mut taken.lock().unwrap());
    Report {
        executions: per_round * CONNECTIONS * ROUNDS,
        took,
        first: judged[0].probe,
        last: last.expect("there is a last round"),
        shm: (shm_before, names_in_shm(sidecar.pid())),
        slope: slope(judged),
        p99_us: (p99(&latencies[0]), p99(&latencies[1])),
        benign: benign.into_inner().unwrap(),
        wrong: wrong.into_inner().unwrap(),
    }
}

fn percentile_99(taken: &mut [u64]) -> u64 {
    taken.sort_unstable();
    taken.get(taken.len() * 99 / 100).copied().unwrap_or(0)
}

/// When nothing runs, waits or is suspended.
fn measure(sidecar: &Sidecar, observer: &mut Client, executions: usize) -> Sample {
    eventually("the sidecar is quiet", QUIET_LIMIT, || {
        let stats = observer.stats();
        (stats.active_instances, stats.queued, stats.suspended_instances) == (0, 0, 0)
    });
    Sample { executions, probe: LeakProbe::of(sidecar.pid()), segments: observer.stats().total_executions as usize }
}

/// The last measurement, once what was kept for the peak has been let go.
fn settled(sidecar: &Sidecar, first: &LeakProbe) -> LeakProbe {
    let until = Instant::now() + QUIET_LIMIT;
    loop {
        let probe = LeakProbe::of(sidecar.pid());
        let is_back =
            probe.maps <= first.maps + SPARE_MAPPINGS && (probe.fds, probe.threads) == (first.fds, first.threads);
        if is_back || Instant::now() > until {
            return probe;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn slope(samples: &[Sample]) -> f64 {
    let n = samples.len() as f64;
    let mean = |f: fn(&Sample) -> f64| samples.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(|s| s.executions as f64), mean(|s| s.probe.rss_bytes as f64));
    let dx = |s: &Sample| s.executions as f64 - x;
    let covariance: f64 = samples.iter().map(|s| dx(s) * (s.probe.rss_bytes as f64 - y)).sum();
    assert!(samples.windows(2).all(|pair| pair[0].segments < pair[1].segments), "the sidecar does not count its work");
    covariance / samples.iter().map(|s| dx(s) * dx(s)).sum::<f64>()
}

struct Load<'a> {
    sidecar: &'a Sidecar,
    client: Client,
    rng: Rng,
    /// Of benign executions, in microseconds.
    taken: Vec<u64>,
    wrong: Vec<String>,
}

impl Load<'_> {
    fn step(&mut self) {
        match self.rng.below(200) {
            0..=119 => self.benign(),
            120..=144 => self.suspended(),
            145..=154 => self.cancelled_while_suspended(),
            155..=159 => self.cancelled_while_running(),
            160 => self.abandoned(),
            161 => self.asks_and_leaves(),
            162..=174 => self.fails("throw new TypeError('soak')", ErrorCode::ExecutionError),
            175..=184 => self.fails("$state.secret", ErrorCode::PermissionDenied),
            185..=189 => self.fails("(function f() { f() })()", ErrorCode::ExecutionError),
            190..=193 => self.fails("for (;;);", ErrorCode::Timeout),
            194 | 195 => self.fails("/(a+)+$/.test('a'.repeat(40) + 'b')", ErrorCode::Timeout),
            196 => self.fails("return (3n ** 4000000n).toString()", ErrorCode::Timeout),
            197 => self.fails("const a = []; for (;;) a.push(new Uint8Array(65536))", ErrorCode::MemoryLimit),
            198 => self.fails("return 'x'.repeat(1 << 18)", ErrorCode::ResourceLimit),
            _ => self.fails("return }", ErrorCode::CompilationError),
        }
    }

    fn benign(&mut self) {
        let (variant, n) = (self.rng.below(SOURCES), self.rng.below(1000));
        let source = format!(
            "const xs = [3, 1, 2].map(x => x * $args.n + {variant}); $state.sum = xs.reduce((a, b) => a + b);
             $emit('sum', {{ sum: $state.sum }}); return JSON.stringify(xs.sort((a, b) => a - b))"
        );
        let run = Run::source(source).args(&json!({"n": n})).state(&json!({"sum": 0, "other": "x".repeat(200)}));
        let started = Instant::now();
        let segment = self.client.run(run.grant(&["state:read:sum", "state:write:sum", "events:emit:sum"]));
        self.taken.push(started.elapsed().as_micros() as u64);
        let of = |k: usize| k * n + variant;
        let expected = serde_json::to_string(&[of(1), of(2), of(3)]).expect("numbers are JSON");
        let mutations = json!([{"op": "set", "key": "sum", "value": of(1) + of(2) + of(3)}]);
        let is_right =
            segment.status == Status::Success && segment.value() == expected && segment.mutations == mutations;
        if !is_right {
            self.wrong.push(format!("{segment:?}"));
        }
    }

    fn suspended(&mut self) {
        let source = "const [a, b] = await Promise.all([$ext.http.get($args), $ext.db.get($args)]); $state.n = a + b; return a + b";
        let n = self.rng.below(1000);
        let first = self.client.run(Run::source(source).args(&json!(n)).grant(&["ext:*", "state:write:n"]));
        let mut calls = first.calls.clone();
        self.rng.shuffle(&mut calls);
        let mut last = first;
        for call in &calls {
            last = self.client.resume(&call.id, &json!(n));
        }
        if last.status != Status::Success || last.value() != json!(2 * n) {
            self.wrong.push(format!("{last:?}"));
        }
    }

    fn cancelled_while_suspended(&mut self) {
        let source = "globalThis.kept = new Array(1000).fill($args); await $ext.a.b(); return 1";
        let segment = self.client.run(Run::source(source).args(&json!("kept")).grant(&["ext:a"]));
        if !self.client.cancel_suspension(&segment.call().id) {
            self.wrong.push("a suspension could not be cancelled".into());
        }
    }

    fn cancelled_while_running(&mut self) {
        let id = self.client.start(Run::source("for (;;);").timeout_ms(60_000));
        let _ = self.client.cancel_request(id);
        let segment = self.client.segment(id);
        if segment.code() != ErrorCode::Cancelled {
            self.wrong.push(format!("{segment:?}"));
        }
    }

    /// The connection goes, with a suspended execution and one that runs.
    fn abandoned(&mut self) {
        let mut client = self.sidecar.connect();
        client.run(Run::source("await $ext.a.b()").grant(&["ext:a"])).call();
        client.start(Run::source("for (;;);").timeout_ms(1000));
    }

    /// The connection goes while something is compiled that no cache knows. Nobody else is told that it was cancelled.
    fn asks_and_leaves(&mut self) {
        let mut client = self.sidecar.connect();
        let source = format!("return {}", self.rng.next_u64());
        client.send(&ClientMessage::Check(Check { source: &source }));
        client.start(&*source);
    }

    fn fails(&mut self, source: &str, code: ErrorCode) {
        let timeout_ms = if code == ErrorCode::Timeout { 2 } else { 60_000 };
        let run = Run::source(source).state(&json!({"secret": 1})).timeout_ms(timeout_ms);
        let segment = self.client.run(run.limits(|limits| {
            limits.memory_limit_bytes = Some(4 << 20);
            limits.max_result_bytes = Some(1 << 16);
        }));
        if segment.error.as_ref().is_none_or(|error| error.code != code) {
            self.wrong.push(format!("{source}: {segment:?}"));
        }
    }
}
