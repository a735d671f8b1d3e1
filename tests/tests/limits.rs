//! Every bound on what an execution takes: it ends with the code of that bound, and says which, how much, and how much it was.

use std::time::Duration;

use nexus_protocol::{ContextValue, ErrorCode};
use nexus_tests::client::Answer;
use nexus_tests::leaks::{LeakProbe, forget_peak_rss, of_guests, peak_rss_bytes};
use nexus_tests::run::{ALL, BUILTIN, listening, run, sidecar, value};
use nexus_tests::{Client, Options, Run, SOON, Segment, Watchdog, eventually, in_time, time};
use serde_json::{Value, json};

fn context(segment: &Segment, key: &str) -> Option<Value> {
    segment.error().context.get(key).map(|value| match value {
        ContextValue::Text(text) => json!(text),
        ContextValue::Number(n) => json!(n),
    })
}

/// Code, resource and limit are these, and the count has reached the limit (whole milliseconds round down).
#[track_caller]
fn assert_breach(segment: &Segment, code: ErrorCode, resource: &str, limit: u64) {
    assert_eq!(segment.code(), code, "{resource}: {:?}", segment.error());
    assert_eq!(context(segment, "resource"), Some(json!(resource)), "{:?}", segment.error());
    assert_eq!(context(segment, "limit"), Some(json!(limit)), "{:?}", segment.error());
    let count = context(segment, "count").and_then(|n| n.as_u64()).unwrap_or_default();
    assert!(count > limit || resource.ends_with("Ms") && count == limit, "{resource}: {count} of {limit}");
}

// ---- counts and bytes ----

#[test]
fn every_counted_limit_names_itself_its_bound_and_the_count() {
    let (_w, _s, mut client) = sidecar();
    type Narrow = fn(&mut nexus_protocol::message::CallLimits<'static>);
    let cases: [(&str, &str, u64, Narrow); 5] = [
        ("for (;;) $emit('e', 1)", "maxEvents", 3, |l| l.max_events = Some(3)),
        ("for (;;) $view.focus('v')", "maxEvents", 3, |l| l.max_events = Some(3)),
        ("for (let i = 0; ; i++) $state['k' + i] = i", "maxStateMutations", 3, |l| l.max_state_mutations = Some(3)),
        ("for (let i = 0; ; i++) $state.get('k' + i)", "maxHostCalls", 3, |l| l.max_host_calls = Some(3)),
        ("return 'x'.repeat(2000)", "maxResultBytes", 1000, |l| l.max_result_bytes = Some(1000)),
    ];
    for (source, resource, limit, narrow) in cases {
        let segment = run(&mut client, Run::source(source).grant(&ALL).limits(narrow));
        assert_breach(&segment, ErrorCode::ResourceLimit, resource, limit);
    }
    for effects in ["for (;;) $emit('e', 'x'.repeat(300))", "for (;;) $ext.a.b('x'.repeat(300)).catch(() => 0)"] {
        let segment = run(&mut client, Run::source(effects).grant(&ALL).limits(|l| l.max_result_bytes = Some(1000)));
        assert_breach(&segment, ErrorCode::ResourceLimit, "maxResultBytes", 1000);
    }
}

#[test]
fn a_source_that_is_too_large_names_the_limit() {
    let (_w, _s, mut client) = sidecar();
    let segment = run(&mut client, format!("return 1 //{}", "x".repeat(1 << 20)).as_str());
    assert_breach(&segment, ErrorCode::ResourceLimit, "maxSourceBytes", 1 << 20);
}

#[test]
fn one_host_call_copies_at_most_so_much() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().flag("memory-limit-bytes", 128u64 << 20).child();
    let limit = nexus_protocol::limits::MAX_HOST_CALL_BYTES;
    for source in ["$emit('e', s)", "$state.k = s", "$ext.a.b(s)", "$view.command('v', 'c', s)"] {
        let source = format!("const s = 'x'.repeat({}); {source}; return 1", limit + 1);
        let segment = run(&mut client, Run::source(source).grant(&ALL));
        assert_breach(&segment, ErrorCode::ResourceLimit, "maxHostCallBytes", limit);
    }
}

#[test]
fn all_host_calls_together_copy_at_most_so_much() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().flag("timeout-ms", 40_000).child();
    let limit = nexus_protocol::limits::MAX_COPIED_BYTES;
    let source = "for (;;) try { crypto.getRandomValues(new Uint8Array(60000)) } catch {}";
    let segment = run(&mut client, Run::source(source).grant(&ALL));
    assert_breach(&segment, ErrorCode::ResourceLimit, "maxCopiedBytes", limit);
}

#[test]
fn input_that_cannot_fit_is_refused_before_it_enters() {
    let (_w, _s, mut client) = sidecar();
    let limit = 2u64 << 20;
    let large = Run::source("return 1").args(&json!("x".repeat(3 << 20)));
    let segment = run(&mut client, large.limits(move |l| l.memory_limit_bytes = Some(limit)));
    assert_breach(&segment, ErrorCode::MemoryLimit, "memoryLimitBytes", limit);
    let waiting = Run::source("return await $ext.a.b(1)").grant(&ALL);
    let waiting = client.run(waiting.limits(move |l| l.memory_limit_bytes = Some(limit)));
    let segment = client.resume(&waiting.call().id, &json!("x".repeat(3 << 20)));
    assert_breach(&segment, ErrorCode::MemoryLimit, "memoryLimitBytes", limit);
    client.still_works();
}

#[test]
fn suspended_executions_are_counted() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().flag("max-suspended", 2).child();
    let waiting = Run::source("return await $ext.a.b(1)").grant(&ALL);
    let held = [client.run(waiting.clone()).call().id.clone(), client.run(waiting.clone()).call().id.clone()];
    assert_breach(&run(&mut client, waiting), ErrorCode::ResourceLimit, "maxSuspended", 2);
    for id in held {
        assert_eq!(client.resume(&id, &json!(7)).value(), 7);
    }
}

// ---- the queue ----

#[test]
fn a_full_queue_says_when_to_come_again() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().patient().flag("max-instances", 1).flag("max-queued", 2).child();
    let ids: Vec<u32> = (0..4).map(|_| client.start("for (;;);")).collect();
    let refused = client.segment(ids[3]);
    assert_breach(&refused, ErrorCode::Overloaded, "maxQueued", 2);
    assert!(refused.error().retryable);
    assert!(context(&refused, "retryAfterMs").and_then(|ms| ms.as_u64()).is_some_and(|ms| ms > 0));
    for id in &ids[..3] {
        assert!(client.cancel_request(*id));
        assert_eq!(client.segment(*id).code(), ErrorCode::Cancelled);
    }
    client.still_works();
}

#[test]
fn an_execution_that_waits_ends_at_its_own_deadline() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().patient().flag("max-instances", 1).child();
    let busy = client.start("for (;;);");
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    let patient = client.start("return 'patient'");
    let hasty: Vec<u32> = (0..3).map(|i| client.start(Run::source("return 1").timeout_ms(100 + i))).collect();
    for (id, timeout_ms) in hasty.into_iter().zip(100..) {
        assert_breach(&client.segment(id), ErrorCode::Timeout, "timeoutMs", timeout_ms);
    }
    let stats = client.stats();
    assert_eq!((stats.active_instances, stats.queued), (1, 1), "the others were not touched");
    assert!(client.cancel_request(busy));
    assert_eq!(client.segment(busy).code(), ErrorCode::Cancelled);
    assert_eq!(client.segment(patient).value(), "patient");
}

// shows P-never-refused
#[test]
fn a_client_that_keeps_to_what_it_was_told_is_not_refused() {
    let _w = Watchdog::seconds(60);
    let busy = Run::source("for (;;);").timeout_ms(400);
    for (flags, expected) in [([2, 3], 5), ([1, 0], 1)] {
        let sidecar = Options::new().patient().flag("max-instances", flags[0]).flag("max-queued", flags[1]).listen();
        let mut client = sidecar.connect_silently();
        let Answer::Hello { limits, .. } = client.hello() else { panic!("no hello") };
        assert_eq!(limits.max_in_flight, expected, "{flags:?}");
        let ids: Vec<u32> = (0..expected).map(|_| client.start(busy.clone())).collect();
        for id in ids {
            assert_eq!(client.segment(id).code(), ErrorCode::Timeout, "{flags:?}");
        }
    }
    let (_s, mut client) = Options::new().patient().child();
    let long: Vec<u32> = (0..10).map(|_| client.start(busy.clone())).collect();
    let brief: Vec<u32> = (0..1000).map(|_| client.start("return 1")).collect();
    // all of maxInFlight was used, and no more
    for id in long {
        assert_eq!(client.segment(id).code(), ErrorCode::Timeout);
    }
    for id in brief {
        assert_eq!(client.segment(id).value(), 1);
    }
}

#[test]
fn a_request_waits_at_most_so_long() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().patient().flag("max-instances", 1).flag("max-queue-ms", 100).child();
    let busy = client.start("for (;;);");
    let waiting = client.start("return 1");
    let refused = client.segment(waiting);
    assert_breach(&refused, ErrorCode::Overloaded, "maxQueueMs", 100);
    assert!(refused.error().retryable && context(&refused, "retryAfterMs").is_some());
    assert!(client.cancel_request(busy));
    assert_eq!(client.segment(busy).code(), ErrorCode::Cancelled);
    client.still_works();
}

#[test]
fn time_in_the_queue_counts_against_the_deadline() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().patient().flag("max-instances", 1).child();
    let busy = client.start(Run::source("for (;;);").timeout_ms(3_000));
    let hasty = client.start(Run::source("$log('ran'); return 1").timeout_ms(500));
    let segment = client.segment(hasty);
    assert_breach(&segment, ErrorCode::Timeout, "timeoutMs", 500);
    assert_eq!(segment.logs, json!([]));
    client.segment(busy);
}

#[test]
fn no_limit_can_be_caught() {
    let (_w, _s, mut client) = sidecar();
    type Narrow = fn(&mut nexus_protocol::message::CallLimits<'static>);
    let cases: [(&str, &str, Narrow); 4] = [
        ("for (let i = 0; i < 9; i++) $emit('e', i)", "maxEvents", |l| l.max_events = Some(3)),
        ("for (let i = 0; i < 9; i++) $state['k' + i] = i", "maxStateMutations", |l| l.max_state_mutations = Some(3)),
        ("for (let i = 0; i < 9; i++) $state.get('k' + i)", "maxHostCalls", |l| l.max_host_calls = Some(3)),
        ("return 'x'.repeat(2000)", "maxResultBytes", |l| l.max_result_bytes = Some(1000)),
    ];
    for (source, resource, narrow) in cases {
        let segment = run(&mut client, Run::source(source).grant(&ALL).limits(narrow));
        assert_eq!(segment.code(), ErrorCode::ResourceLimit, "{resource}: {:?}", segment.error);
        assert_eq!(context(&segment, "resource"), Some(json!(resource)));
        assert!(context(&segment, "limit").is_some() && context(&segment, "count").is_some(), "{:?}", segment.error());
        assert!(segment.events.as_array().unwrap().len() <= 3 && segment.mutations.as_array().unwrap().len() <= 3);
        let caught = format!("try {{ {source} }} catch (e) {{ return 'caught' }} finally {{ $log('finally') }}");
        let segment = run(&mut client, Run::source(caught).grant(&ALL).limits(narrow));
        if resource != "maxResultBytes" {
            assert_eq!(segment.code(), ErrorCode::ResourceLimit, "{resource} was caught");
        }
    }
}

#[test]
fn a_limit_cannot_be_widened_by_a_call() {
    let (_w, _s, mut client) = sidecar();
    let source = "for (let i = 0; i < 200; i++) $emit('e', i)";
    let segment = run(&mut client, Run::source(source).grant(&ALL).limits(|l| l.max_events = Some(100_000)));
    assert_eq!(context(&segment, "limit"), Some(json!(100)));
}

#[test]
fn an_unknown_limit_is_refused() {
    let (_w, _s, mut client) = sidecar();
    // the same length, so that the frame stays well-formed
    let known = Run::source("return 1").limits(|l| l.max_events = Some(1));
    let mut frame = Vec::new();
    known.message().encode(nexus_protocol::RequestId(77), 1 << 20, &mut frame).unwrap();
    let at = frame.windows(9).position(|w| w == b"maxEvents").unwrap();
    frame[at..at + 9].copy_from_slice(b"maxFriend");
    client.write_raw(&frame);
    let segment = client.segment(77);
    assert_eq!(segment.code(), ErrorCode::InvalidArgument);
    assert!(segment.error().message.contains("maxFriend"));
    client.still_works();
}

// ---- time and memory ----

/// What a run takes here and now that ends by itself, some milliseconds of which are its own.
fn brief(client: &mut Client) -> Duration {
    time(|| drop(client.run("let n = 0; for (let i = 0; i < 2e5; i++) n += i & 1; return n").value()))
}

#[test]
fn loops_end_at_the_deadline() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    for source in [
        "for (;;);",
        "while (true) { try { while (true); } catch { } finally { continue } }",
        "const f = async () => { while (true) await null }; await f()",
        "return /(a+)+$/.test('a'.repeat(40) + 'b')",
        "function f() { return Promise.resolve().then(f) } await f()",
        "for (;;) [1, 2, 3].map(x => x * 2)",
    ] {
        let mut other = sidecar.connect();
        in_time(
            source,
            Duration::from_millis(60 + 50),
            || brief(&mut other),
            || {
                time(|| {
                    let segment = run(&mut client, Run::source(source).timeout_ms(60));
                    assert_eq!(segment.code(), ErrorCode::Timeout, "{source}");
                    assert_eq!(context(&segment, "limit"), Some(json!(60)));
                })
            },
        );
    }
}

#[test]
fn builtins_that_do_not_look_at_the_clock_are_stopped_as_well() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    for source in [
        BUILTIN,
        "const n = 3n ** 600000n; for (;;) n.toString()",
        "const a = new Array(3e5).fill(0).map((_, i) => (i * 7919) % 1000003); for (;;) a.slice().sort().reverse()",
        "let s = 'ab'.repeat(500000); for (;;) s.replaceAll('a', 'cc').normalize('NFD')",
        "for (;;) JSON.stringify(JSON.parse('[' + '1,'.repeat(300000) + '1]'))",
    ] {
        let mut other = sidecar.connect();
        in_time(
            source,
            Duration::from_millis(100 + 250),
            || brief(&mut other),
            || {
                time(|| {
                    let segment = run(&mut client, Run::source(source).timeout_ms(100));
                    assert_eq!(segment.code(), ErrorCode::Timeout, "{source}: {:?}", segment.error);
                })
            },
        );
    }
}

#[test]
fn a_flood_of_large_host_calls_is_stopped_without_harm() {
    let _w = Watchdog::seconds(180);
    const MANY: u64 = 100_000_000;
    let options =
        Options::new().flag("max-host-calls", MANY).flag("max-state-mutations", MANY).flag("max-events", MANY);
    let (mut sidecar, mut client) = options.child();
    let large = "const s = 'x'.repeat(20000);";
    for source in [
        format!("{large} for (;;) $log(s)"),
        format!("{large} for (;;) try {{ $emit('e', s) }} catch {{}}"),
        format!("{large} for (;;) $state.k = s"),
        format!("{large} $state.k = s; for (;;) $state.get('k')"),
        "for (;;) crypto.getRandomValues(new Uint8Array(60000))".to_owned(),
    ] {
        for i in 0..12 {
            let unlimited = Run::source(&*source).grant(&ALL).timeout_ms(10 + 3 * i);
            let segment = client.run(unlimited);
            let stopped =
                [ErrorCode::Timeout, ErrorCode::ResourceLimit, ErrorCode::MemoryLimit].contains(&segment.code());
            assert!(stopped, "{source}: {:?}", segment.error());
        }
        client.still_works();
    }
    assert!(sidecar.is_running());
}

#[test]
fn a_timeout_is_placed_in_the_loop_or_nowhere() {
    let (_w, _s, mut client) = sidecar();
    for source in ["let n = 0\nwhile (true) n++", "let n = 0\nfor (;;) [1].map(x => x + n)"] {
        let segment = run(&mut client, Run::source(source).timeout_ms(50));
        let line = segment.error().location.as_ref().map(|l| l.line);
        assert!(matches!(line, None | Some(2)), "{source}: {:?}", segment.error());
    }
}

#[test]
fn no_job_of_the_handler_runs_after_the_deadline() {
    let (_w, _s, mut client) = sidecar();
    let source = "Promise.resolve().then(() => $emit('late', 1)); for (;;);";
    let segment = run(&mut client, Run::source(source).grant(&ALL).timeout_ms(50));
    assert_eq!((segment.code(), segment.events), (ErrorCode::Timeout, json!([])));
}

#[test]
fn memory_bombs_are_a_memory_limit() {
    let (_w, mut sidecar, mut client) = sidecar();
    for source in [
        "const a = []; for (;;) a.push(new Array(1000).fill(7))",
        "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
        "let s = 'x'; for (;;) s += s + 'y'; ",
        "const m = new Map(); for (let i = 0;; i++) m.set({i}, 'v' + i)",
        "const a = []; for (;;) a.push(() => a)",
        "let o = {}; for (let i = 0;; i++) o['key' + i] = i",
        "const all = []; for (;;) all.push(new Error('e'))",
        "return new ArrayBuffer(1 << 30)",
    ] {
        let segment = run(&mut client, Run::source(source).limits(|l| l.memory_limit_bytes = Some(8 << 20)));
        let code = segment.code();
        // a string or a buffer may also be refused for its size alone, which is a RangeError
        let refused = code == ErrorCode::ExecutionError
            && matches!(segment.error().name.as_deref(), Some("RangeError" | "InternalError"));
        assert!(code == ErrorCode::MemoryLimit || refused, "{source}: {:?}", segment.error());
        assert!(segment.memory_peak_bytes <= (8 << 20) + (2 << 20), "{source}: {}", segment.memory_peak_bytes);
    }
    assert!(sidecar.is_running());
}

#[test]
fn memory_that_was_refused_is_told_with_what_it_would_have_come_to() {
    let (_w, _s, mut client) = sidecar();
    let limit = 4 << 20;
    for source in [
        "new ArrayBuffer(5 << 20)",
        "'x'.repeat(5 << 20) + 1",
        "const a = []; for (;;) a.push(a.length)",
        "return 'x'.repeat(3 << 20)",
    ] {
        let segment = client.run(Run::source(source).limits(|l| l.memory_limit_bytes = Some(limit)));
        assert_breach(&segment, ErrorCode::MemoryLimit, "memoryLimitBytes", limit);
    }
}

#[test]
fn deep_recursion_is_a_range_error_that_can_be_caught() {
    let (_w, _s, mut client) = sidecar();
    for source in [
        "function f() { f() } f()",
        "const o = {get x() { return this.x }}; o.x",
        "let p = {}; for (let i = 0; i < 5e4; i++) p = new Proxy(p, {}); Object.getPrototypeOf(p)",
        "JSON.parse('['.repeat(1e6))",
        "let f = () => 1; for (let i = 0; i < 3e4; i++) f = Object.defineProperty(f.bind(null), 'name', {value: ''}); f()",
        "const a = []; a[0] = a; a.flat(Infinity)",
    ] {
        let segment = run(&mut client, source);
        assert_eq!(segment.code(), ErrorCode::ExecutionError, "{source}: {:?}", segment.error);
        let name = segment.error().name.clone().unwrap_or_default();
        assert!(
            &*name == "RangeError" || (source.contains("JSON") && &*name == "SyntaxError"),
            "{source}: {:?}",
            segment.error()
        );
    }
    assert_eq!(
        value(&mut client, "function f() { f() } try { f() } catch (e) { return e instanceof RangeError }"),
        true
    );
}

#[test]
fn the_deadline_covers_all_segments_and_no_suspended_time() {
    let (_w, _s, mut client) = sidecar();
    let spin = "const end = n => { const t = Array(n).fill(0); for (const _ of t) for (let i = 0; i < 1e5; i++); };";
    let source = format!("{spin} for (;;) {{ end(10); await $ext.a.b(1); }}");
    let mut segment = client.run(Run::source(source).grant(&ALL).timeout_ms(2_000));
    let mut resumed = 0;
    while segment.error.is_none() {
        std::thread::sleep(Duration::from_millis(if resumed == 0 { 2_500 } else { 0 }));
        let call = segment.call().id.clone();
        segment = client.resume(&call, &json!(null));
        resumed += 1;
    }
    assert_breach(&segment, ErrorCode::Timeout, "timeoutMs", 2_000);
    assert!(resumed > 1, "suspended time was counted");
    client.still_works();
}

#[test]
fn at_both_bounds_of_the_stack_overflow_is_a_range_error_that_can_be_caught() {
    for bytes in [64u64 << 10, 2 << 20] {
        let _w = Watchdog::seconds(60);
        let (mut sidecar, mut client) = Options::new().flag("stack-size-bytes", bytes).child();
        for recursion in [
            "const f = () => f(); f()",
            "const o = { get x() { return this.x } }; o.x",
            "const o = { toString() { return '' + this } }; '' + o",
            "const f = () => [2, 1].sort(f); f()",
            "const f = () => 'a'.replace(/a/, f); f()",
            "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); Object.getPrototypeOf(p)",
            "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; String(a)",
            "JSON.parse('['.repeat(1e6))",
            "let f = () => 1; for (let i = 0; i < 3e4; i++) f = Object.defineProperty(f.bind(null), 'name', {value: ''}); f()",
        ] {
            let source = format!("try {{ {recursion} }} catch (e) {{ return e instanceof RangeError || e.name }}");
            let caught = run(&mut client, Run::source(source)).value();
            assert!(caught == true || caught == "SyntaxError", "{bytes}: {recursion}: {caught}");
        }
        assert!(sidecar.is_running());
    }
}

// ---- what a peer may cost ----

#[test]
fn a_reader_that_does_not_read_stderr_holds_nobody_up() {
    let _w = Watchdog::seconds(120);
    let (mut sidecar, mut client) = Options::new().unread_stderr().flag("log", "debug").child();
    // each of these writes a record
    let noisy = Run::source("try { $state.k = 1 } catch {} return 7");
    for _ in 0..300 {
        assert_eq!(client.run(noisy.clone()).value(), 7);
        assert_eq!(client.run("const a = []; a.x.y").code(), ErrorCode::ExecutionError);
    }
    assert_eq!(client.run(Run::source("for (;;);").timeout_ms(50)).code(), ErrorCode::Timeout);
    client.still_works();
    assert!(sidecar.is_running());
    // who reads again is told that something is missing
    sidecar.read_stderr();
    nexus_tests::eventually("the log says what it dropped", Duration::from_secs(30), || {
        client.run(noisy.clone());
        sidecar.stderr().contains("bytes of the log were dropped: stderr was full")
    });
}

/// Payloads that take much more memory than bytes, when they are decoded.
fn worst_payloads(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let count = |marker: u8, n: usize| [&[marker][..], &(n as u32).to_be_bytes()].concat();
    let nils = [count(0xdd, bytes), vec![0xc0; bytes]].concat();
    // chains of arrays as deep as a payload may be, one after another
    let chain: Vec<u8> = [vec![0x91; 60], vec![0xc0]].concat();
    let chains = [count(0xdd, bytes / chain.len()), chain.repeat(bytes / chain.len())].concat();
    let entries = (0..bytes / 6).flat_map(|i| {
        let letter = |at: usize| b'A' + (i >> (5 * at) & 31) as u8;
        [0xa4, letter(0), letter(1), letter(2), letter(3), 0xc0]
    });
    let entries: Vec<u8> = entries.collect();
    let map = [count(0xdf, entries.len() / 6), entries].concat();
    let empty_maps = [count(0xdd, bytes), vec![0x80; bytes]].concat();
    vec![("nils", nils), ("chains", chains), ("map of nils", map), ("empty maps", empty_maps)]
}

#[test]
fn the_worst_payloads_take_little_more_than_their_frames() {
    const FRAME: u64 = 4 << 20;
    // beside the frames there may be what the guest has, and what resident states may take
    const GUEST: u64 = 8 << 20;
    const STATES: u64 = 8 << 20;
    let _w = Watchdog::seconds(240);
    let options = Options::new().flag("max-frame-bytes", FRAME).flag("max-result-bytes", 1 << 20);
    let (sidecar, mut client) = options.flag("memory-limit-bytes", GUEST).flag("max-state-bytes", STATES).child();
    client.still_works();
    let id = client.create_state(&json!({"n": 1}));
    let mut wrong = Vec::new();
    for (name, payload) in worst_payloads(FRAME as usize - 4096) {
        let in_map = [b"\x81\xa1k", &payload[..]].concat();
        let whole = if name == "map of nils" { payload.clone() } else { in_map };
        let state = || Run::source("return 1").state_bytes(whole.clone());
        let read = Run::source("return typeof $state.k").grant(&["state:read:*"]).state_bytes(whole.clone());
        let args = Run::source("return 1").args_bytes(payload.clone());
        type Send<'a> = &'a dyn Fn(&mut Client);
        let ways: [(&str, u64, Send<'_>); 5] = [
            ("state", 0, &|client| drop(client.run(state()))),
            ("state, read", GUEST, &|client| drop(client.run(read.clone()))),
            ("args", GUEST, &|client| drop(client.run(args.clone()))),
            ("a resident state", STATES, &|client| {
                if let Ok((id, _)) = client.try_create_state(&whole) {
                    client.dispose_state(&id);
                }
            }),
            ("a patch", STATES, &|client| drop(client.patch_state(&id, &nexus_tests::run::unpack(&whole), &[], None))),
        ];
        for (way, beside, send) in ways {
            if way == "a patch" && name != "map of nils" {
                continue;
            }
            // of who has the frames: whoever compiles for others comes when there is something to compile
            let pid = of_guests(sidecar.pid());
            let base = LeakProbe::of_process(pid).rss_bytes;
            forget_peak_rss(pid);
            send(&mut client);
            let more = peak_rss_bytes(pid).saturating_sub(base);
            println!("{:>8} KiB for {name} as {way}", more >> 10);
            if more > FRAME * 5 / 2 + (4 << 20) + beside {
                wrong.push(format!("{name} as {way}: {} KiB", more >> 10));
            }
        }
    }
    client.still_works();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
