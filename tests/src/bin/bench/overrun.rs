//! How far beyond its deadline a run is answered, for each step of the kill ladder: the interrupt word, the loss of the
//! memory, the loss of the thread; and for what comes before it runs: compiling, waiting for another's compilation, reading
//! a source. The round trip is in it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nexus_protocol::ErrorCode;
use nexus_protocol::message::SuspendMode;
use nexus_tests::bench::Sample;
use nexus_tests::process::has_faults;
use nexus_tests::run::slow_to_compile;
use nexus_tests::{Answer, Client, Options, Run, Sidecar};
use serde_json::{Map, Value, json};

use crate::Scale;

const TIMEOUT: Duration = Duration::from_millis(20);
/// Of each style.
const RUNS: usize = 400;
const RETIRED: usize = 3;
const STAGES: usize = 40;
const CROWD_TIMEOUT: Duration = Duration::from_millis(500);
const CROWD_CLIENTS: usize = 10;
const CROWD_EACH: usize = 10;

/// JavaScript and regular expressions look at the interrupt word.
const POLLING: [&str; 4] = [
    "for (;;);",
    "for (;;) [1, 2, 3].map(x => x * 2)",
    "const f = async () => { while (true) await null }; await f()",
    "return /(a+)+$/.test('a'.repeat(40) + 'b')",
];

/// These do not, or not for long.
const NATIVE: [&str; 6] = [
    "return (3n ** 4000000n).toString().length",
    "let n = 3n; for (;;) n = n ** 2n > 1n ? 3n ** 3000000n : n",
    "const s = '\u{e9}\u{1e69}'.repeat(300000); for (;;) s.normalize('NFD')",
    "const s = 'ab'.repeat(500000); for (;;) s.replaceAll('a', 'cc')",
    "const a = new Array(3e5).fill(0).map((_, i) => (i * 7919) % 1000003); for (;;) a.slice().sort()",
    "const s = '[' + '1,'.repeat(300000) + '1]'; for (;;) JSON.stringify(JSON.parse(s))",
];

/// Hardly ever in its own code, where alone it can be stopped.
const HOST_CALLS: [&str; 1] = ["const b = new Uint8Array(65536); for (;;) crypto.getRandomValues(b)"];

pub fn figures(scale: Scale) -> Map<String, Value> {
    let mut figures = Map::new();
    let sidecar = Options::new().patient().flag("log", "error").flag("min-instances", 2).listen();
    let mut client = sidecar.connect();
    for (mode, style) in [(SuspendMode::Await, "Await"), (SuspendMode::Stack, "Stack")] {
        for (name, sources) in [("javascript", &POLLING[..]), ("builtins", &NATIVE[..]), ("hostCalls", &HOST_CALLS[..])]
        {
            let each = scale.of(RUNS).div_ceil(sources.len());
            let taken = sources.iter().flat_map(|source| {
                let run = Run::source(*source).suspend_mode(mode).grant(&["crypto:random"]);
                let run = run.timeout_ms(TIMEOUT.as_millis() as u64);
                (0..each).map(|_| overrun(&mut client, &run)).collect::<Vec<_>>()
            });
            figures.insert(format!("{name}{style}"), summary(taken.collect()));
        }
    }
    for (name, taken) in stages(&sidecar, scale.of(STAGES)) {
        figures.insert(name.into(), summary(taken));
    }
    figures.insert("crowdAtOneSource".into(), summary(crowd()));
    if has_faults() {
        let taken = (0..RETIRED).map(|_| {
            let (_sidecar, mut client) =
                Options::new().patient().flag("log", "error").faults("host-call:hang@1").child();
            overrun(&mut client, &Run::source("$log('x')").timeout_ms(TIMEOUT.as_millis() as u64))
        });
        figures.insert("stuckThread".into(), summary(taken.collect()));
    }
    figures
}

/// What comes before a handler runs.
fn stages(sidecar: &Sidecar, each: usize) -> [(&'static str, Vec<Duration>); 3] {
    let (mut client, mut patient) = (sidecar.connect(), sidecar.connect());
    let mut late = |run: &Run| (0..each).map(|_| overrun(&mut client, run)).collect();
    let ms = TIMEOUT.as_millis() as u64;
    let slow = slow_to_compile();
    let compiling = late(&Run::source(&*slow).timeout_ms(ms));
    let first = patient.start(&*slow);
    let awaited = late(&Run::source(&*slow).timeout_ms(ms));
    assert!(patient.cancel_request(first), "the compilation has ended too early");
    patient.segment(first);
    let typed = "{ const value: Type = $state.property as Type; use<Type>(value) }\n".repeat(15 << 10);
    [
        ("compiling", compiling),
        ("awaitedCompilation", awaited),
        ("readingASource", late(&Run::source(typed).timeout_ms(ms))),
    ]
}

/// A hundred that want one source at once, which compiles for longer than they have. All settings are the defaults.
fn crowd() -> Vec<Duration> {
    let mut sidecar = Options::new().flag("log", "error").listen();
    let run = Run::source(slow_to_compile()).timeout_ms(CROWD_TIMEOUT.as_millis() as u64);
    let each = || {
        let mut client = sidecar.connect();
        let mut sent: HashMap<u32, Instant> =
            (0..CROWD_EACH).map(|_| (client.start(run.clone()), Instant::now())).collect();
        let mut late = Vec::new();
        while !sent.is_empty() {
            let reply = client.next_reply().expect("the sidecar lives");
            let Answer::Result(segment) = &reply.answer else { panic!("{reply:?}") };
            assert_eq!(segment.code(), ErrorCode::Timeout, "{segment:?}");
            late.push(sent.remove(&reply.id).expect("asked for").elapsed().saturating_sub(CROWD_TIMEOUT));
        }
        late
    };
    let late = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CROWD_CLIENTS).map(|_| scope.spawn(each)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("an end")).collect()
    });
    assert!(sidecar.is_running());
    late
}

fn overrun(client: &mut Client, run: &Run) -> Duration {
    let started = Instant::now();
    let segment = client.run(run.clone());
    let took = started.elapsed();
    assert_eq!(segment.code(), ErrorCode::Timeout, "{run:?}: {segment:?}");
    took.saturating_sub(TIMEOUT)
}

fn summary(taken: Vec<Duration>) -> Value {
    let (runs, sample) = (taken.len(), Sample::from(taken));
    let max = sample.percentile(100.0).as_secs_f64() * 1e6;
    json!({ "runs": runs, "p50Us": sample.p50_us(), "p99Us": sample.p99_us(), "maxUs": max })
}
