//! What the engine takes inside the sidecar, without sockets: run, reset, suspend and resume, instantiate, compile, and reads of
//! a resident state of 10,000 keys.
//!
//! `cargo bench -p nexus-sidecar --bench engine [-- --json] [-- --quick]`. Every value that a handler returns is checked,
//! so that nothing is measured that did not happen.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::CapabilitySet;
use nexus_protocol::message::SuspendMode;
use nexus_sidecar::budget::Budget;
use nexus_sidecar::engine::context::{Context, ExecutionLimits};
use nexus_sidecar::engine::{Compiled, Engine, EngineOptions, Instance, SegmentEnd, StateView, thread_stack_bytes};
use nexus_sidecar::resident::ResidentState;
use nexus_sidecar::token::StopToken;
use serde_json::{Map, Value, json};

const STACK_BYTES: u32 = 1 << 20;
const TINY: &str = "return $args.a + 1";
const TINY_ARGS: &[u8] = &[0x81, 0xa1, b'a', 41];
const FIB: &str = "const fib = n => n < 2 ? n : fib(n - 1) + fib(n - 2); return fib(25)";
const SMALL: &str = "return (await $ext.a.b()) + $args.a";
const OBJECTS: &str =
    "const all = []; for (let i = 0; i < 2000; i++) all.push({ id: i, name: 'item ' + i, tags: [i % 3] });
    const a = await $ext.a.b(); return a + all[40].id + 1";
const AWAITED: &str = "for (let i = 0;; i++) if (await $ext.a.b(i) !== i) return 'wrong answer'";
const DEEP: &str = "const go = n => { if (n) return go(n - 1) + 1; for (let i = 0;; i++) if ($ext.a.b(i) !== i) return 'wrong answer' };";
/// Of a state of 10,000 records: its names, by the method and as of any object; whether each is there; a number of each,
/// which is 49,995,000 in all, both ways.
const KEYS: &str = "return $state.keys().length === 10000 ? 42 : 0";
const KEYS_SUM: &str = "let n = 0; for (const k of $state.keys()) n += $state[k].n; return n === 49995000 ? 42 : n";
const NAMES: &str = "return Object.keys($state).length === 10000 ? 42 : 0";
const IS_THERE: &str =
    "let n = 0; for (const k of $state.keys()) n += k in $state ? 1 : 0; return n === 10000 ? 42 : n";
const SUM: &str = "let n = 0; for (const k of Object.keys($state)) n += $state[k].n; return n === 49995000 ? 42 : n";
const LOOP: &str = "let n = 0; for (let i = 0; i < 1000000; i++) n += i & 3; return n";

fn main() {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let (json, quick) = (has("--json"), has("--quick"));
    let bench = move || figures(if quick { 10 } else { 1 });
    let thread =
        std::thread::Builder::new().stack_size(thread_stack_bytes(STACK_BYTES)).spawn(bench).expect("a thread");
    let figures = thread.join().expect("the bench runs to its end");
    if json {
        println!("{}", Value::Object(figures));
        return;
    }
    for (name, figure) in &figures {
        if let Some(number) = figure.as_u64() {
            println!("{name:<28} {number:>14}");
            continue;
        }
        println!(
            "{name:<28} p50 {:>10.1} us   p99 {:>10.1} us",
            figure["p50Us"].as_f64().unwrap(),
            figure["p99Us"].as_f64().unwrap()
        );
    }
}

fn figures(divide: usize) -> Map<String, Value> {
    let engine = Engine::start(EngineOptions {
        mode: SuspendMode::Await,
        aot: true,
        simd: true,
        bulk_memory: true,
        stack_bytes: STACK_BYTES,
        module: None,
    })
    .expect("the engine starts");
    let mut instance = engine.instantiate().expect("an instance");
    let mut figures = Map::new();
    let mut sizes = Vec::new();
    let mut put = |name: &str, taken: Vec<Duration>| figures.insert(name.to_owned(), summary(taken));

    let tiny = compile(&mut instance, TINY);
    let (runs, resets) = runs(&mut instance, &tiny, &[42], 20_000 / divide);
    let both = runs.iter().zip(&resets).map(|(run, reset)| *run + *reset).collect();
    put("tinyRun", runs);
    put("reset", resets);
    put("tinyRunAndReset", both);
    let awaited = compile(&mut instance, AWAITED);
    put("suspendAndResume", suspensions(&mut instance, &awaited, 20_000 / divide));
    for (name, source, count) in [("Small", SMALL, 10_000), ("2000Objects", OBJECTS, 300)] {
        let parked = parkings(&mut instance, source, count / divide);
        for (what, taken) in
            [("park", parked.parking), ("unpark", parked.unparking), ("resumeUnparked", parked.resuming)]
        {
            put(&format!("{what}{name}"), taken);
        }
        sizes.push((format!("parkedBytes{name}"), json!(parked.bytes)));
    }
    put("instantiate", repeat(300 / divide, || drop(black_box(engine.instantiate().expect("an instance")))));
    put("compileTiny", compiles(&engine, TINY, 2_000 / divide));
    put("compile10KB", compiles(&engine, &ten_kilobytes(), 500 / divide));
    let fib = compile(&mut instance, FIB);
    put("fib25", self::runs(&mut instance, &fib, &[0xce, 0, 1, 0x25, 0x11], 100 / divide).0);
    let million = compile(&mut instance, LOOP);
    put("loop1M", self::runs(&mut instance, &million, &[0xce, 0, 0x16, 0xe3, 0x60], 100 / divide).0);
    for (what, bytes) in [("Small", 100), ("1KB", 1000)] {
        let state = resident(bytes);
        for (name, source) in
            [("Keys", KEYS), ("KeysSum", KEYS_SUM), ("Names", NAMES), ("IsThere", IS_THERE), ("Sum", SUM)]
        {
            let bytecode = compile(&mut instance, source);
            let (running, resetting) = runs_in(&mut instance, &bytecode, &[42], 20 / divide, || on(&state));
            put(&format!("resident{what}{name}"), running);
            put(&format!("resident{what}{name}Reset"), resetting);
        }
    }
    // the same handlers where extension calls suspend the whole stack
    let started = Instant::now();
    let stack = engine.start_stack_style().expect("the engine starts in stack style");
    put("stackStart", vec![started.elapsed()]);
    let mut stacked = stack.instantiate().expect("an instance");
    let (runs, resets) = self::runs(&mut stacked, &tiny, &[42], 20_000 / divide);
    put("stackTinyRun", runs);
    put("stackReset", resets);
    put("stackFib25", self::runs(&mut stacked, &fib, &[0xce, 0, 1, 0x25, 0x11], 100 / divide).0);
    put("stackLoop1M", self::runs(&mut stacked, &million, &[0xce, 0, 0x16, 0xe3, 0x60], 100 / divide).0);
    for depth in [0, 10, 100] {
        let bytecode = compile(&mut instance, &format!("{DEEP} return go({depth})"));
        put(&format!("stackSuspendDepth{depth}"), suspensions(&mut stacked, &bytecode, 10_000 / divide));
    }
    figures.extend(sizes);
    figures
}

fn summary(mut taken: Vec<Duration>) -> Value {
    taken.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (taken.len() * percent).div_ceil(100).max(1);
        taken[rank - 1].as_secs_f64() * 1e6
    };
    json!({ "p50Us": percentile(50), "p99Us": percentile(99), "count": taken.len() })
}

fn repeat(count: usize, mut f: impl FnMut()) -> Vec<Duration> {
    let timed = |_| {
        let started = Instant::now();
        f();
        started.elapsed()
    };
    (0..count.max(5)).map(timed).collect()
}

/// 10,000 records, each a number and a text of so many bytes.
fn resident(text_bytes: usize) -> Arc<ResidentState> {
    let record = |n: usize| (format!("r{n:06}"), json!({ "n": n, "text": "x".repeat(text_bytes) }));
    let all: Map<String, Value> = (0..10_000).map(record).collect();
    let payload = rmp_serde::to_vec(&all).expect("it can be encoded");
    ResidentState::new(&payload, &Budget::new("bytes", 1 << 30), &StopToken::new()).expect("there is room")
}

fn on(state: &Arc<ResidentState>) -> Box<Context> {
    let view = StateView::resident(state.clone(), None, false).expect("no version is asked for");
    context_with(["state:read:*", "state:write:*"], view)
}

fn context() -> Box<Context> {
    let mut context = context_with(["ext:*"], StateView::new(vec![0x80]));
    context.args = TINY_ARGS.to_vec();
    context
}

fn context_with<const N: usize>(capabilities: [&str; N], state: StateView) -> Box<Context> {
    let limits = ExecutionLimits {
        timeout: None,
        memory_bytes: 32 << 20,
        host_calls: 10_000_000,
        state_mutations: 1000,
        events: 100,
        result_bytes: 16 << 20,
        log_bytes: 64 << 10,
    };
    let capabilities = CapabilitySet::parse(capabilities).expect("good tokens");
    Box::new(Context::new(capabilities, state, limits))
}

/// As in production: the watchdog has a deadline to look at.
fn deadline() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(20))
}

fn compile(instance: &mut Instance, source: &str) -> Vec<u8> {
    let compiled = instance.compile(source, 32 << 20, deadline());
    instance.reset().expect("a reset");
    match compiled {
        Compiled::Bytecode(bytecode) => bytecode,
        other => panic!("{source}: {other:?}"),
    }
}

/// Executions on one instance, each pristine: what running takes, and what the reset after it takes.
fn runs(instance: &mut Instance, bytecode: &[u8], expected: &[u8], count: usize) -> (Vec<Duration>, Vec<Duration>) {
    runs_in(instance, bytecode, expected, count, context)
}

fn runs_in(
    instance: &mut Instance,
    bytecode: &[u8],
    expected: &[u8],
    count: usize,
    context: impl Fn() -> Box<Context>,
) -> (Vec<Duration>, Vec<Duration>) {
    let (mut running, mut resetting) = (Vec::new(), Vec::new());
    for i in 0..count.max(5) + 5 {
        let context = context();
        let started = Instant::now();
        let segment = instance.run(bytecode, context, deadline());
        let ran = started.elapsed();
        assert!(matches!(&segment.end, SegmentEnd::Done(value) if value == expected), "{:?}", segment.end);
        let started = Instant::now();
        instance.reset().expect("a reset");
        if i >= 5 {
            running.push(ran);
            resetting.push(started.elapsed());
        }
    }
    (running, resetting)
}

/// One execution that suspends again and again: each resume carries one answer in and the next call out.
fn suspensions(instance: &mut Instance, bytecode: &[u8], count: usize) -> Vec<Duration> {
    let segment = instance.run(bytecode, context(), deadline());
    assert!(matches!(segment.end, SegmentEnd::Suspended), "{:?}", segment.end);
    let mut taken = Vec::new();
    for i in 0..count as u32 {
        let mut answer = vec![0xce];
        answer.extend(i.to_be_bytes());
        let started = Instant::now();
        let segment = instance.resume(i, Ok(&answer), deadline());
        taken.push(started.elapsed());
        assert!(matches!(segment.end, SegmentEnd::Suspended), "{i}: {:?}", segment.end);
    }
    instance.reset().expect("a reset");
    taken
}

struct Parkings {
    parking: Vec<Duration>,
    unparking: Vec<Duration>,
    resuming: Vec<Duration>,
    bytes: usize,
}

/// Suspends, parks, resets, unparks and resumes; the handler returns 42.
fn parkings(instance: &mut Instance, source: &str, count: usize) -> Parkings {
    let bytecode = compile(instance, source);
    let mut all = Parkings { parking: Vec::new(), unparking: Vec::new(), resuming: Vec::new(), bytes: 0 };
    for _ in 0..count.max(5) {
        let segment = instance.run(&bytecode, context(), deadline());
        assert!(matches!(segment.end, SegmentEnd::Suspended), "{:?}", segment.end);
        let started = Instant::now();
        let parked = instance.park().expect("it can be parked");
        all.parking.push(started.elapsed());
        all.bytes = parked.bytes();
        instance.reset().expect("a reset");
        let started = Instant::now();
        instance.unpark(parked).expect("it can be unparked");
        all.unparking.push(started.elapsed());
        let started = Instant::now();
        let segment = instance.resume(0, Ok(&[1]), deadline());
        all.resuming.push(started.elapsed());
        assert!(matches!(&segment.end, SegmentEnd::Done(value) if *value == [42]), "{:?}", segment.end);
        instance.reset().expect("a reset");
    }
    all
}

fn compiles(engine: &Arc<Engine>, source: &str, count: usize) -> Vec<Duration> {
    let mut instance = engine.instantiate().expect("an instance");
    let mut taken = Vec::new();
    for _ in 0..count.max(5) {
        let started = Instant::now();
        let compiled = instance.compile(source, 32 << 20, deadline());
        taken.push(started.elapsed());
        assert!(matches!(compiled, Compiled::Bytecode(_)), "{compiled:?}");
        instance.reset().expect("a reset");
    }
    taken
}

/// A handler of 10 KB as people write them: functions, objects, branches.
fn ten_kilobytes() -> String {
    let mut source = String::new();
    for i in 0.. {
        if source.len() > 10_000 {
            break;
        }
        source.push_str(&format!(
            "function step{i}(item, index) {{\n  const total = item.price * (1 + index / {});\n  if (total > {i}) {{\n    return {{ ...item, total, label: `step {i}: ${{item.name}}` }};\n  }}\n  return null;\n}}\n",
            i + 1
        ));
    }
    source + "return [{ name: 'a', price: 3 }].map(step0)"
}
