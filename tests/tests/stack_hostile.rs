//! Stack style under attack: what a handler can do while its stack is deep or saved, and who asks for which style.

use nexus_protocol::ErrorCode;
use nexus_protocol::message::{Status, SuspendMode};
use nexus_tests::corpus::{Hostile, LONG_TIMEOUT_MS, corpus};
use nexus_tests::leaks::stack_uses;
use nexus_tests::run::{BUILTIN, calling, listening, suspended};
use nexus_tests::{Client, Options, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use serde_json::json;

/// One instance, so that whatever an execution left behind would be found by the next.
fn one_instance(options: Options) -> (Watchdog, Sidecar, Client) {
    listening(&options.flag("max-instances", 1))
}

/// A benign handler in each style.
#[track_caller]
fn works_in_both_styles(client: &mut Client) {
    client.still_works();
    let first = suspended(client, "const r = [1, 2].map(x => x + $ext.a.b(x)); return r");
    let second = client.resume(&first.call().id, &json!(10));
    assert_eq!(client.resume(&second.call().id, &json!(20)).value(), json!([11, 22]));
}

/// Calls at a depth, and does `then` there when it is resumed.
fn deep(then: &str) -> String {
    format!("const f = n => n ? [n].map(x => f(x - 1))[0] : g($ext.a.b(1)); const g = r => {{ {then} }}; return f(100)")
}

#[test]
fn what_ends_an_execution_deep_in_a_resumed_stack_leaves_nothing_behind() {
    let (_w, mut sidecar, mut client) = one_instance(Options::new());
    let attacks = [
        ("for (;;);", ErrorCode::Timeout),
        ("try { for (;;); } catch {} finally { for (;;); }", ErrorCode::Timeout),
        (BUILTIN, ErrorCode::Timeout),
        ("const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))", ErrorCode::MemoryLimit),
        ("for (;;) $state.x = 1", ErrorCode::ResourceLimit),
        ("const h = () => h(); h()", ErrorCode::ExecutionError),
        ("null.x", ErrorCode::ExecutionError),
    ];
    for (then, code) in attacks {
        let timeout = if code == ErrorCode::Timeout { 1_000 } else { 20_000 };
        let first = client.run(calling(deep(then)).timeout_ms(timeout));
        assert_eq!(first.status, Status::Suspended, "{first:?}");
        assert_eq!(client.resume(&first.call().id, &json!(1)).code(), code, "{then}");
        works_in_both_styles(&mut client);
    }
    assert!(sidecar.is_running());
}

#[test]
fn a_deep_stack_that_runs_again_is_cancelled() {
    let (_w, _s, mut client) = one_instance(Options::new().patient());
    let first = suspended(&mut client, &deep("for (;;);"));
    let running = client.start_resume(&first.call().id, &json!(1));
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    assert!(client.cancel_request(running));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    works_in_both_styles(&mut client);
}

#[test]
fn a_hundred_stacks_are_suspended_at_once() {
    let (_w, _s, mut client) = one_instance(Options::new());
    let source = "const f = n => n ? f(n - 1) + 1 : $ext.a.b(1); return f(50) + f(10)";
    let firsts: Vec<Segment> = (0..100).map(|_| suspended(&mut client, source)).collect();
    let seconds: Vec<Segment> =
        firsts.iter().enumerate().rev().map(|(i, first)| client.resume(&first.call().id, &json!(i))).collect();
    for (second, i) in seconds.iter().zip((0..100).rev()) {
        assert_eq!(client.resume(&second.call().id, &json!(1000)).value(), json!(50 + i + 10 + 1000));
    }
    works_in_both_styles(&mut client);
}

#[test]
fn a_full_stack_of_the_default_size_is_suspended_and_a_larger_one_is_or_is_refused_by_name() {
    // of some forty kinds of recursion, those whose saved frames take most for what they use of JavaScript's stack
    let steps = [
        "f()",
        "JSON.stringify({a: {a: {a: {a: {toJSON() { return f() }}}}}})",
        "[...function* () { yield f() }()][0]",
    ];
    for stack in [1 << 20, 2 << 20] {
        let (_w, mut sidecar, mut client) = one_instance(Options::new().debug().flag("stack-size-bytes", stack));
        for step in steps {
            let source = format!(
                "let called = false; const f = () => {{ try {{ {step} }} catch (e) {{ if (called || !(e instanceof RangeError)) throw e; $ext.a.b(1); called = true }} return 1 }}; f(); return called"
            );
            let first = client.run(calling(&source).timeout_ms(10_000));
            if stack > 1 << 20 && first.status == Status::Error {
                assert_eq!(first.code(), ErrorCode::ResourceLimit, "{step}: {first:?}");
                assert!(first.error().message.starts_with("suspendStackBytes"), "{step}: {first:?}");
            } else {
                assert_eq!(first.status, Status::Suspended, "{stack}, {step}: {:?}", first.error);
                assert_eq!(client.resume(&first.call().id, &json!(1)).value(), json!(true), "{step}");
            }
            works_in_both_styles(&mut client);
        }
        assert!(sidecar.is_running());
    }
}

#[test]
fn no_recursion_takes_more_than_half_of_its_threads_stack() {
    let recursions: Vec<Hostile> = corpus().into_iter().filter(|hostile| hostile.row == "H4").collect();
    assert!(recursions.len() >= 40, "{}", recursions.len());
    let mut wrong = Vec::new();
    for stack in [64u64 << 10, 1 << 20, 2 << 20] {
        // as `thread_stack_bytes` of the engine has it
        let size = (16 << 20) + 48 * stack;
        for mode in [SuspendMode::Await, SuspendMode::Stack] {
            let _w = Watchdog::seconds(300);
            // a process for each: what a stack has taken stays with it
            let options = Options::new().flag("max-instances", 1).flag("timeout-ms", LONG_TIMEOUT_MS);
            let mut sidecar = options.flag("stack-size-bytes", stack).listen();
            let mut client = sidecar.connect();
            works_in_both_styles(&mut client);
            let mut most = (0, String::new());
            for hostile in &recursions {
                drop(hostile.attack_in(&mut client, mode));
                assert!(sidecar.is_running(), "{stack}, {mode:?}: {}", hostile.name);
                let uses = stack_uses(sidecar.pid());
                let workers: Vec<_> = uses.iter().filter(|stack| stack.thread.starts_with("worker-")).collect();
                assert!(!workers.is_empty(), "{uses:?}");
                for worker in workers {
                    // the kernel may tell of it together with what lies above it
                    assert!(worker.size_bytes >= size, "not the whole of a stack: {worker:?}");
                    if worker.used_bytes > most.0 {
                        most = (worker.used_bytes, hostile.name.clone());
                    }
                }
            }
            works_in_both_styles(&mut client);
            let (used, by) = most;
            let percent = 100 * used / size;
            println!("{} KiB, {mode:?}: {} of {} KiB, {percent} %, by {by}", stack >> 10, used >> 10, size >> 10);
            if percent > 50 {
                wrong.push(format!("{} KiB, {mode:?}: {percent} % by {by}", stack >> 10));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn code_that_describes_a_failure_cannot_wait() {
    let (_w, _s, mut client) = one_instance(Options::new().debug());
    let thrown = client.run(calling("const [x] = [$ext]; throw {get message() { return x.a.b(1) }, name: 'N'}"));
    assert_eq!(thrown.code(), ErrorCode::ExecutionError, "{thrown:?}");
    let written = client.run(calling("const [x] = [$ext]; $state.k = {n: 1}; Object.defineProperty($state.k, 'n', {get: () => x.a.b(1), enumerable: true}); return 1"));
    assert_eq!(written.status, Status::Error, "{written:?}");
    works_in_both_styles(&mut client);
}

// shows P-style-asked-for
#[test]
fn a_client_may_ask_for_a_style_and_a_handle_keeps_its_own() {
    let (_w, _s, mut client) = one_instance(Options::new());
    let promise = "const p = $ext.a.b(1); return [p instanceof Promise, await p]";
    for (mode, is_promise) in [(SuspendMode::Await, true), (SuspendMode::Stack, false)] {
        let first = client.run(calling(promise).suspend_mode(mode));
        assert_eq!(client.resume(&first.call().id, &json!(7)).value(), json!([is_promise, 7]));
    }
    let handle = client.precompile("const r = $ext.a.b(1); return r").unwrap();
    let as_recorded = client.run(Run::handle(&handle).grant(&["ext:*"]).suspend_mode(SuspendMode::Stack));
    assert_eq!(client.resume(&as_recorded.call().id, &json!(7)).value(), 7);
    let other = client.run(Run::handle(&handle).grant(&["ext:*"]).suspend_mode(SuspendMode::Await));
    assert_eq!(other.code(), ErrorCode::InvalidArgument);
}

// shows P-stack-bytes
#[test]
fn a_stack_too_large_to_suspend_is_a_limit_and_leaves_the_slot_fit() {
    let (_w, mut sidecar, mut client) = one_instance(Options::new().debug().flag("stack-size-bytes", 2 << 20));
    // the depth that the stack allows is found without a call, and the call is made a little above it; of the built-ins that call
    // back, flatMap has the most to keep in one frame: 1.06 times what may be kept
    let source = "let most = 0;
        const probe = n => { most = n; [n].flatMap(() => probe(n + 1)) };
        try { probe(0) } catch (e) { if (!(e instanceof RangeError)) throw e }
        const call = n => n > 0 ? [n].flatMap(() => call(n - 1))[0] : $ext.a.b(most);
        return call(Math.floor(most * 0.97))";
    for _ in 0..5 {
        let refused = client.run(calling(source).timeout_ms(20_000));
        assert_eq!(refused.code(), ErrorCode::ResourceLimit, "{refused:?}");
        let context = format!("{:?}", refused.error());
        assert!(context.contains("suspendStackBytes") && context.contains("2097152"), "{context}");
        works_in_both_styles(&mut client);
    }
    assert_eq!(client.stats().suspended_instances, 0);
    assert!(sidecar.is_running());
}

#[test]
fn a_slot_whose_execution_was_ended_while_suspended_is_pristine_in_both_styles() {
    let (_w, _s, mut client) = one_instance(Options::new());
    let dirty = "globalThis.leak = 1; Object.prototype.leak = 1; Array.prototype.map.leak = 1;";
    for (call, mode) in [
        ("const r = [1].map(x => $ext.a.b(x)); return r", SuspendMode::Stack),
        ("return await $ext.a.b(1)", SuspendMode::Await),
    ] {
        for round in 0..20 {
            let first = client.run(calling(format!("{dirty} {call}")).suspend_mode(mode));
            assert_eq!(first.status, Status::Suspended, "{first:?}");
            if round % 2 == 0 {
                assert!(client.cancel_suspension(&first.call().id));
            } else {
                // another goes on and is stopped while it runs
                let looped = format!(
                    "{dirty} const r = {}$ext.a.b(1); for (;;) r + 1",
                    if mode == SuspendMode::Await { "await " } else { "" }
                );
                assert!(client.cancel_suspension(&first.call().id));
                let running = client.run(calling(&looped).suspend_mode(mode).timeout_ms(500));
                assert_eq!(client.resume(&running.call().id, &json!(1)).code(), ErrorCode::Timeout);
            }
            for style in [SuspendMode::Await, SuspendMode::Stack] {
                let next =
                    client.run(calling("return [typeof leak, 'leak' in {}, 'leak' in [].map]").suspend_mode(style));
                assert_eq!(next.value(), json!(["undefined", false, false]), "{mode:?}, {round}, then {style:?}");
            }
        }
    }
    works_in_both_styles(&mut client);
}

#[test]
fn a_call_inside_prepare_stack_trace_works_in_both_styles() {
    let (_w, mut sidecar, mut client) = one_instance(Options::new().debug());
    // an error runs the handler's own code when it is made: more calls than the table holds at first. Making a call runs none
    let within = "let ran = 0; const got = [];
        Error.prepareStackTrace = () => { if (!ran++) for (let i = 1; i <= 9; i++) got.push($ext.a.b(i)); return 'mine' };
        void new Error('e').stack;";
    for (then, mode) in [
        (
            "const r = await $ext.a.b(0); Error.prepareStackTrace = undefined; return [r, await Promise.all(got)]",
            SuspendMode::Await,
        ),
        ("const r = $ext.a.b(0); Error.prepareStackTrace = undefined; return [r, got]", SuspendMode::Stack),
    ] {
        let mut segment = client.run(calling(format!("{within} {then}")).suspend_mode(mode));
        let (mut answered, mut waiting) = (Vec::new(), Vec::new());
        while segment.status == Status::Suspended {
            // what is new in a segment; in promise style all others wait still
            waiting.append(&mut segment.calls);
            let call = waiting.remove(0);
            answered.push(call.args[0].as_i64().unwrap());
            segment = client.resume(&call.id, &json!(call.args[0].as_i64().unwrap() * 10));
        }
        answered.sort_unstable();
        assert_eq!(answered, (0..=9).collect::<Vec<_>>(), "{mode:?}: {segment:?}");
        let value = segment.value();
        assert_eq!(value[0], 0, "{mode:?}");
        let mut values: Vec<i64> = value[1].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, (1..=9).map(|n| n * 10).collect::<Vec<_>>(), "{mode:?}");
        works_in_both_styles(&mut client);
    }
    assert!(sidecar.is_running());
}
