//! Tests of one instance against the real guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::CapabilitySet;
use nexus_protocol::limits::KILL_GRACE_MS;
use serde_json::{Value, json};

use super::context::{Context, ExecutionLimits};
use super::control::{Ended, Entry, StopCause};
use super::guest_error::GuestError;
use super::*;

pub(super) fn engine() -> Arc<Engine> {
    static ENGINE: std::sync::OnceLock<Arc<Engine>> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| Engine::start(options()).expect("the engine starts")).clone()
}

/// The guest that was built in, unless the environment names a module, as `cargo xtask patches` does.
fn options() -> EngineOptions {
    let module = std::env::var_os("NEXUS_TEST_MODULE").map(Into::into);
    EngineOptions { aot: module.is_none(), module, ..EngineOptions::default() }
}

/// Runs `f` on a thread with the stack that guests need.
pub(super) fn on_engine_thread<T: Send + 'static>(f: impl FnOnce(&mut Instance) -> T + Send + 'static) -> T {
    std::thread::Builder::new()
        .stack_size(thread_stack_bytes(1 << 20))
        .spawn(move || f(&mut engine().instantiate().expect("an instance")))
        .unwrap()
        .join()
        .unwrap()
}

pub(super) fn limits() -> ExecutionLimits {
    ExecutionLimits {
        timeout: None,
        memory_bytes: 32 << 20,
        host_calls: 10_000,
        state_mutations: 1000,
        events: 100,
        result_bytes: 16 << 20,
        log_bytes: 64 << 10,
    }
}

pub(super) fn context(state: Value, capabilities: &[&str]) -> Box<Context> {
    let state = StateView::new(rmp_serde::to_vec(&state).unwrap());
    Box::new(Context::new(CapabilitySet::parse(capabilities.iter().copied()).unwrap(), state, limits()))
}

pub(super) fn compile(instance: &mut Instance, source: &str) -> Vec<u8> {
    let compiled = instance.compile(source, 32 << 20, None);
    instance.reset().unwrap();
    match compiled {
        Compiled::Bytecode(bytecode) => bytecode,
        Compiled::Refused(e) => panic!("{source}: {:?}", GuestError::decode(&e)),
        other => panic!("{source}: {other:?}"),
    }
}

fn run_with(instance: &mut Instance, source: &str, context: Box<Context>, timeout: Duration) -> SegmentEnd {
    let bytecode = compile(instance, source);
    instance.run(&bytecode, context, Some(Instant::now() + timeout)).end
}

pub(super) fn value(end: SegmentEnd) -> Value {
    match end {
        SegmentEnd::Done(bytes) => rmp_serde::from_slice(&bytes).unwrap(),
        SegmentEnd::Failed(e) => panic!("{:?}", GuestError::decode(&e)),
        other => panic!("{other:?}"),
    }
}

const SECOND: Duration = Duration::from_secs(10);

#[test]
fn a_handler_runs_and_its_writes_are_recorded() {
    on_engine_thread(|i| {
        let source = "$state.n += 1; $state.user.name = 'x'; $emit('done', {n: $state.n}); return $state.n";
        let caps = ["state:read:*", "state:write:*", "events:emit:done"];
        let end = run_with(i, source, context(json!({"n": 41, "user": {"name": "a"}}), &caps), SECOND);
        assert_eq!(value(end), json!(42));
        let effects = i.context_mut().unwrap().take_effects();
        let mutations: Value = rmp_serde::from_slice(effects.state_mutations.payload().unwrap()).unwrap();
        assert_eq!(
            mutations,
            json!([{"op": "set", "key": "n", "value": 42}, {"op": "set", "key": "user", "value": {"name": "x"}}])
        );
        let events: Value = rmp_serde::from_slice(effects.events.payload().unwrap()).unwrap();
        assert_eq!((&events[0]["name"], &events[0]["payload"]), (&json!("done"), &json!({"n": 42})));
    });
}

#[test]
fn a_reset_restores_every_byte_after_benign_and_hostile_handlers() {
    let handlers = [
        "return 1",
        "const a = []; for (let i = 0; i < 200000; i++) a.push({i}); return a.length",
        "globalThis.x = 1; Array.prototype.push = 1; Object.prototype.y = 2; return 3",
        "const b = new Uint8Array(20 << 20).fill(0xaa); $state.b = b.slice(0, 10); return b.length",
        "function f(n) { return n ? f(n - 1) + 1 : 0 } return f(3000)",
        "throw new Error('x')",
        "await $ext.a.b({big: 'x'.repeat(100000)})",
        "await new Promise(() => {})",
        "new FinalizationRegistry(() => {}).register({}, 1); return 1",
    ];
    on_engine_thread(move |i| {
        for source in handlers {
            let end = run_with(i, source, context(json!({}), &["state:write:*", "ext:*"]), SECOND);
            assert!(!matches!(end, SegmentEnd::Broken(_) | SegmentEnd::Stopped(..)), "{source}: {end:?}");
            i.reset().unwrap();
            assert_eq!(i.first_difference(), None, "{source}");
            assert_eq!(i.stack_pointer(), Some(engine().image.stack_pointer()), "{source}");
            assert!(i.is_sound(), "{source}");
        }
    });
}

#[test]
fn promises_of_extension_calls_resume_in_any_order() {
    on_engine_thread(|i| {
        let source = "const [a, b] = await Promise.all([$ext.http.get('u'), $ext.db.q(1)]); return [a, b]";
        let end = run_with(i, source, context(json!({}), &["ext:*"]), SECOND);
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        let calls = std::mem::take(&mut i.context_mut().unwrap().new_calls);
        assert_eq!(
            calls.iter().map(|c| format!("{}.{}", c.extension, c.method)).collect::<Vec<_>>(),
            ["http.get", "db.q"]
        );
        let end = i.resume(1, Ok(&[2]), None).end;
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        assert!(i.context_mut().unwrap().new_calls.is_empty());
        assert_eq!(value(i.resume(0, Ok(&[1]), None).end), json!([1, 2]));
    });
}

#[test]
fn a_failed_extension_call_points_at_the_call() {
    on_engine_thread(|i| {
        let source = "\nconst x = 1;\n  await $ext.http.get('u')";
        run_with(i, source, context(json!({}), &["ext:http"]), SECOND);
        let error = rmp_serde::to_vec_named(&json!({"message": "no route", "code": "E1"})).unwrap();
        let SegmentEnd::Failed(e) = i.resume(0, Err(&error), None).end else { panic!() };
        let wire =
            GuestError::decode(&e).to_wire(nexus_protocol::ErrorCode::ExecutionError, source, &Default::default());
        assert_eq!(wire.message, "no route");
        assert_eq!(wire.location.unwrap().line, 3);
    });
}

#[test]
fn what_may_not_be_read_never_enters_the_guest() {
    on_engine_thread(|i| {
        let secret = "4f3c9d1e-the-secret-of-this-test";
        let source = "try { return $state.secret } catch (e) { return [e.code, e.capability] }";
        let end = run_with(i, source, context(json!({"secret": secret, "open": 1}), &["state:read:open"]), SECOND);
        assert_eq!(value(end), json!(["PERMISSION_DENIED", "state:read:secret"]));
        assert_eq!(i.context_mut().unwrap().violations, ["state:read:secret"]);
        let memory = i.dump_memory();
        assert!(!memory.windows(secret.len()).any(|w| w == secret.as_bytes()));
    });
}

#[test]
fn a_write_into_a_value_that_may_only_be_read_throws_where_it_stands() {
    on_engine_thread(|i| {
        let source = "const u = $state.user;\nu.name;\n  u.tags[0].x = 1;";
        let end =
            run_with(i, source, context(json!({"user": {"name": "n", "tags": [{}]}}), &["state:read:user"]), SECOND);
        let SegmentEnd::Failed(e) = end else { panic!("{end:?}") };
        let refusals = i.context_mut().unwrap().refusals();
        let wire = GuestError::decode(&e).to_wire(nexus_protocol::ErrorCode::ExecutionError, source, refusals);
        assert_eq!(wire.capability.as_deref(), Some("state:write:user"));
        assert_eq!(wire.location.unwrap().line, 3);
    });
}

#[test]
fn an_endless_loop_is_stopped_at_its_deadline() {
    on_engine_thread(|i| {
        for source in [
            "for (;;);",
            "try { for (;;); } finally { for (;;); }",
            "await (async () => { for (;;) await null })()",
            "/(a+)+$/.test('a'.repeat(40) + 'b')",
        ] {
            // on a busy machine some are late; what is not stopped is late always
            let in_time = (0..6).any(|_| {
                let started = Instant::now();
                let end = run_with(i, source, context(json!({}), &[]), Duration::from_millis(30));
                assert!(matches!(end, SegmentEnd::Stopped(StopCause::Deadline, _)), "{source}: {end:?}");
                *i = engine().instantiate().unwrap();
                started.elapsed() < Duration::from_secs(2)
            });
            assert!(in_time, "{source}");
        }
    });
}

#[test]
fn a_builtin_that_never_looks_up_is_killed_and_the_engine_goes_on() {
    on_engine_thread(|i| {
        let source = "return 'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b')";
        // on a busy machine the time of some is over before they get to the builtin
        let mut killed = 0;
        for _ in 0..100 {
            let end = run_with(i, source, context(json!({}), &[]), Duration::from_millis(20));
            assert!(matches!(end, SegmentEnd::Stopped(StopCause::Deadline, _)), "{end:?}");
            killed += usize::from(!i.is_sound());
            *i = engine().instantiate().unwrap();
            if killed == 3 {
                break;
            }
        }
        assert_eq!(killed, 3);
        assert_eq!(value(run_with(i, "return 1", context(json!({}), &[]), SECOND)), json!(1));
    });
}

#[test]
fn a_run_that_is_in_host_calls_nearly_all_the_time_ends_in_one() {
    on_engine_thread(|i| {
        let control = i.control().clone();
        control.arm();
        control.begin(Some(Instant::now()));
        let Entry::Open(inside) = control.enter_host() else { panic!("not due yet") };
        assert!(control.patrol(Instant::now()), "whoever looks finds that it is due, and cannot do anything");
        drop(inside);
        assert!(matches!(control.enter_host(), Entry::Refused), "the first call that finds out is refused");
        let Entry::Open(inside) = control.enter_host() else { panic!("the guest may still hand over what it has") };
        std::thread::sleep(Duration::from_millis(KILL_GRACE_MS + 1));
        drop(inside);
        assert!(matches!(control.enter_host(), Entry::Gone), "after the grace period there are no more");
        assert_eq!(control.end(), Ended::Killed(StopCause::Deadline));
        i.memory_of_test().restore_access().unwrap();
    });
}

#[test]
fn a_flood_of_host_calls_is_stopped_where_it_stands() {
    on_engine_thread(|i| {
        let source = "const b = new Uint8Array(65536);\n$state.o.x = 1;\nfor (;;) crypto.getRandomValues(b)";
        // a machine that stands still for the grace period costs the place and the effects: then once more
        let described = (0..10).any(|_| {
            let granted = context(json!({ "o": {} }), &["crypto:random", "state:read:*", "state:write:*"]);
            let end = run_with(i, source, granted, Duration::from_millis(20));
            let SegmentEnd::Stopped(StopCause::Deadline, description) = end else { panic!("{end:?}") };
            let stack = GuestError::decode(&description).stack.unwrap_or_default();
            let effects = i.take_context().unwrap().take_effects();
            *i = engine().instantiate().unwrap();
            stack.contains("handler.js:3:") && !effects.state_mutations.is_empty()
        });
        assert!(described);
    });
}

#[test]
fn limits_end_an_execution_even_when_it_catches_everything() {
    on_engine_thread(|i| {
        let cases = [
            ("for (;;) try { $state.x = 1 } catch {}", "maxStateMutations", &["state:write:x"][..]),
            ("for (;;) try { $emit('e') } catch {}", "maxEvents", &["events:emit:e"]),
            ("for (;;) try { 'x' in $state } catch {}", "maxHostCalls", &["state:read:x"]),
            ("return 'x'.repeat(2 << 20)", "maxResultBytes", &[]),
        ];
        for (source, resource, capabilities) in cases {
            let mut context = context(json!({}), capabilities);
            context.limits.result_bytes = 1 << 20;
            let end = run_with(i, source, context, SECOND);
            let SegmentEnd::Limit(breach, _) = end else { panic!("{source}: {end:?}") };
            assert_eq!(breach.resource, resource);
            i.reset().unwrap();
        }
    });
}

#[test]
fn memory_that_is_used_up_is_reported_with_a_place_and_the_instance_is_not_reused() {
    on_engine_thread(|i| {
        for source in [
            "const a = [];\nfor (;;) a.push(new Array(1000).fill(1))",
            "new Uint8Array(64 << 20)",
            "let s = 'x';\nfor (;;) s += s",
        ] {
            let end = run_with(i, source, context(json!({}), &[]), SECOND);
            assert!(matches!(end, SegmentEnd::OutOfMemory { .. }) || source.contains("s += s"), "{source}: {end:?}");
            *i = engine().instantiate().unwrap();
        }
    });
}

#[test]
fn recursion_of_every_kind_ends_in_an_error() {
    on_engine_thread(|i| {
        for source in [
            "function f() { return f() + 1 } f()",
            "const o = { get x() { return this.x } }; o.x",
            "const p = new Proxy({}, { get(t, k, r) { return r[k] } }); p.x",
            "let p = {}; for (let i = 0; i < 100000; i++) p = new Proxy(p, {}); Object.getPrototypeOf(p); throw new RangeError('x')",
            "JSON.parse('['.repeat(1e6))",
            "const a = []; a[0] = a; a.toJSON = () => JSON.stringify(a); JSON.stringify(a)",
        ] {
            let end = run_with(i, source, context(json!({}), &[]), SECOND);
            let SegmentEnd::Failed(e) = end else { panic!("{source}: {end:?}") };
            let e = GuestError::decode(&e);
            assert!(matches!(e.name.as_deref(), Some("RangeError" | "SyntaxError")), "{source}: {e:?}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn syntax_errors_stand_where_they_are() {
    on_engine_thread(|i| {
        for (source, line) in [
            ("let a = 1;\n\nlet b = ;", 3),
            ("}); (function () {", 1),
            ("const x = 1; const x = 2", 1),
            ("return 1\n}", 2),
        ] {
            let Compiled::Refused(e) = i.compile(source, 32 << 20, None) else { panic!("{source}") };
            let wire = GuestError::decode(&e).to_wire(
                nexus_protocol::ErrorCode::CompilationError,
                source,
                &Default::default(),
            );
            assert_eq!(wire.location.unwrap().line, line, "{source}: {wire:?}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn no_string_becomes_code() {
    on_engine_thread(|i| {
        for source in [
            "eval('1')",
            "(0, globalThis.eval)('1')",
            "Function('return 1')()",
            "(() => {}).constructor('return 1')()",
            "(async () => {}).constructor('return 1')()",
            "(function* () {}).constructor('yield 1')().next()",
            "Reflect.construct(Function, ['return 1'])",
            "await import('std')",
        ] {
            let end = run_with(i, source, context(json!({}), &[]), SECOND);
            assert!(matches!(end, SegmentEnd::Failed(_)), "{source}: {end:?}");
            i.reset().unwrap();
        }
    });
}

/// Every word of what the guest's allocator works with is the address of such words: its lists have no end.
fn damage_allocator(instance: &mut Instance) {
    const WORD: u32 = 8 << 20;
    let words: Vec<u8> = std::iter::repeat_n(WORD.to_le_bytes(), 5 << 20).flatten().collect();
    instance.scribble(abi::SHADOW_STACK_BYTES, &words);
}

#[test]
fn a_damaged_guest_cannot_search_for_memory_for_ever() {
    on_engine_thread(|i| {
        let answer = rmp_serde::to_vec(&"x".repeat(100_000)).unwrap();
        for timeout in [None, Some(Duration::from_millis(100))] {
            let end = run_with(i, "return await $ext.a.b()", context(json!({}), &["ext:*"]), SECOND);
            assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
            damage_allocator(i);
            let end = i.resume(0, Ok(&answer), timeout.map(|timeout| Instant::now() + timeout)).end;
            match timeout {
                None => assert!(matches!(&end, SegmentEnd::Broken(why) if why.contains("did not say")), "{end:?}"),
                Some(_) => assert!(matches!(end, SegmentEnd::Stopped(StopCause::Deadline, _)), "{end:?}"),
            }
            assert!(!i.is_sound());
            *i = engine().instantiate().unwrap();
        }
    });
}

#[test]
fn who_is_cancelled_while_an_input_finds_its_place_is_cancelled() {
    on_engine_thread(|i| {
        let end = run_with(i, "return await $ext.a.b()", context(json!({}), &["ext:*"]), SECOND);
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        damage_allocator(i);
        let control = i.control().clone();
        let ticket = control.arm();
        let stop = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            control.stop(ticket, StopCause::Cancelled);
        });
        let answer = rmp_serde::to_vec(&"x".repeat(100_000)).unwrap();
        let end = i.resume(0, Ok(&answer), None).end;
        assert!(matches!(end, SegmentEnd::Stopped(StopCause::Cancelled, _)), "{end:?}");
        stop.join().unwrap();
    });
}

#[test]
fn an_instance_that_is_lost_is_not_out_any_more() {
    on_engine_thread(|_| {
        let pool = crate::pool::Pool::new(engine(), 0, 1).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (_first, _second) = (pool.lease().unwrap(), pool.lease().unwrap());
            panic!("with two of them");
        }));
        assert!(panicked.is_err() && pool.has_surplus());
        assert_eq!((pool.out(), pool.counts().terminated), (0, 2));
        let next = pool.lease().unwrap();
        assert_eq!(pool.out(), 1);
        pool.give_back(next);
        assert_eq!((pool.out(), pool.counts().terminated, pool.counts().available), (0, 2, 1));
    });
}
