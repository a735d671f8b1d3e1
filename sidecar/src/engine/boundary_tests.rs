//! What the boundary promises of single things, against the real guest in both suspend styles where they differ.

use std::time::{Duration, Instant};

use nexus_protocol::{CapabilitySet, ErrorCode};
use serde_json::{Value, json};

use super::context::{Context, Effects};
use super::control::StopCause;
use super::guest_error::GuestError;
use super::instance_tests::{compile, context, engine, limits, on_engine_thread, value};
use super::registry::Registry;
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

fn run(instance: &mut Instance, source: &str, context: Box<Context>) -> SegmentEnd {
    let bytecode = compile(instance, source);
    instance.run(&bytecode, context, Some(Instant::now() + Duration::from_secs(60))).end
}

fn effects(instance: &mut Instance) -> Effects {
    instance.context_mut().expect("a context").take_effects()
}

pub(super) fn on_stack_style<T: Send + 'static>(f: impl FnOnce(&mut Instance) -> T + Send + 'static) -> T {
    let engine = engine().start_stack_style().expect("the engine starts");
    let run = move || f(&mut engine.instantiate().expect("an instance"));
    std::thread::Builder::new().stack_size(thread_stack_bytes(1 << 20)).spawn(run).unwrap().join().unwrap()
}

/// The wire error of a handler that failed.
fn error(instance: &mut Instance, end: SegmentEnd, source: &str) -> nexus_protocol::WireError {
    let SegmentEnd::Failed(described) = end else { panic!("{source}: {end:?}") };
    let refusals = instance.context_mut().expect("a context").refusals();
    GuestError::decode(&described).to_wire(ErrorCode::ExecutionError, source, refusals)
}

#[test]
fn nothing_of_a_handler_happens_behind_a_limit_whoever_swallows_its_error() {
    on_engine_thread(|i| {
        let exceed = "for (let i = 0; i < 200; i++) $emit('e', i)";
        let places = [
            "const e = new Error('x'); Object.defineProperty(e, 'stack', {get() { EXCEED }}); console.log(e)",
            "console.log({toJSON() { EXCEED }})",
            "Error.prepareStackTrace = () => { EXCEED }; new Error('x')",
            "Error.prepareStackTrace = () => { EXCEED }; try { null.x } catch {}",
            "Error.stackTraceLimit = {valueOf() { EXCEED }}; new Error('x')",
            "try { for (const x of {[Symbol.iterator]: () => ({next: () => ({value: 1}), return() { EXCEED }})}) throw 1 } catch {}",
            "try { EXCEED } catch {} finally { $state.early = 1 }",
            "try { await (async () => { EXCEED })() } catch {}",
            "Promise.resolve().then(() => { EXCEED }).catch(() => {}); await null; await null; await null; await null",
        ];
        for place in places {
            let source = format!("{}; $state.after = 1; return 1", place.replace("EXCEED", exceed));
            let end = run(i, &source, context(json!({}), ALL));
            assert!(matches!(&end, SegmentEnd::Limit(breach, _) if breach.resource == "maxEvents"), "{place}: {end:?}");
            assert!(effects(i).state_mutations.is_empty(), "{place}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn an_endless_loop_in_what_makes_a_stack_trace_is_the_end_of_the_run() {
    on_engine_thread(|i| {
        let hooks = [
            "Error.prepareStackTrace = () => { for (;;); }",
            "Error.stackTraceLimit = {valueOf() { for (;;); }}",
            "Error.prepareStackTrace = () => 'x'.repeat(1e6).replace(/(x+x+)+y/, '')",
        ];
        for hook in hooks {
            for make in [
                "new Error('x')",
                "try { null.x } catch {}",
                "try { $state.secret } catch {}",
                "Error.captureStackTrace({})",
            ] {
                let source = format!("{hook}; {make}; $state.after = 1; return 1");
                let bytecode = compile(i, &source);
                let deadline = Some(Instant::now() + Duration::from_millis(30));
                let end = i.run(&bytecode, context(json!({}), &["state:write:*"]), deadline).end;
                assert!(matches!(end, SegmentEnd::Stopped(StopCause::Deadline, _)), "{hook}, {make}: {end:?}");
                assert!(effects(i).state_mutations.is_empty(), "{hook}, {make}");
                *i = engine().instantiate().unwrap();
            }
        }
    });
}

#[test]
fn the_memory_limit_holds_for_the_code_that_runs_when_a_handler_has_failed() {
    on_engine_thread(|i| {
        let source = "const keep = globalThis.keep = [];
            $state.o.a = {get x() {
                try { for (;;) keep.push(new Uint8Array(1 << 20).fill(1)) } catch {}
                return 1;
            }};
            throw new Error('end')";
        let bytecode = compile(i, source);
        let mut context = context(json!({"o": {"a": 1}, "p": {}}), ALL);
        context.limits.memory_bytes = 8 << 20;
        let segment = i.run(&bytecode, context, None);
        assert!(matches!(segment.end, SegmentEnd::OutOfMemory { .. }), "{segment:?}");
        // 1 MiB for what is written down last, and 32 MiB for the report, which asks nothing that keeps anything here
        assert!(segment.memory_peak < 11 << 20, "{}", segment.memory_peak);
    });
}

#[test]
fn one_change_that_cannot_be_written_down_does_not_lose_the_others_of_a_failed_handler() {
    on_engine_thread(|i| {
        let source = "$state.a.x = 1; $state.b.x = {get y() { throw 1 }}; $state.c.x = 3; throw 1";
        let end = run(i, source, context(json!({"a": {}, "b": {}, "c": {}}), ALL));
        assert!(matches!(end, SegmentEnd::Failed(_)), "{end:?}");
        let mutations: Value = rmp_serde::from_slice(effects(i).state_mutations.payload().unwrap()).unwrap();
        let keys: Vec<&str> = mutations.as_array().unwrap().iter().map(|m| m["key"].as_str().unwrap()).collect();
        assert_eq!(keys, ["a", "c"]);
    });
}

/// Ways to write values that we do not use ourselves.
const ENCODINGS: &[(&str, &[u8])] = &[
    ("BigInt beyond 2^53", &[0x81, 0xa1, b'a', 0xcf, 0xff, 0, 0, 0, 0, 0, 0, 1]),
    ("negative BigInt", &[0x91, 0xd3, 0x80, 0, 0, 0, 0, 0, 0, 1]),
    ("small number in eight bytes", &[0x91, 0xcf, 0, 0, 0, 0, 0, 0, 0, 1]),
    ("text that is not UTF-8", &[0x91, 0xa3, 0xff, 0xfe, b'x']),
    ("half a pair of surrogates", &[0x91, 0xa3, 0xed, 0xa0, 0x80]),
    ("overlong text header", &[0x91, 0xdb, 0, 0, 0, 1, b'x']),
    ("a key twice", &[0x82, 0xa1, b'a', 1, 0xa1, b'a', 2]),
    ("a key twice, deeper", &[0x91, 0x82, 0xa1, b'a', 1, 0xa1, b'a', 2]),
    ("a number beside its text as keys", &[0x82, 1, 1, 0xa1, b'1', 2]),
    ("numbers as keys", &[0x82, 1, 1, 0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 2]),
    ("BigInt as a key", &[0x81, 0xcf, 0xff, 0, 0, 0, 0, 0, 0, 1, 1]),
    ("float of four bytes", &[0x91, 0xca, 0x3f, 0x80, 0, 0]),
    ("whole number as a float", &[0x91, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
    ("minus zero and NaN", &[0x92, 0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0, 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1]),
    ("date with nanoseconds", &[0x91, 0xd7, 0xff, 0, 0, 0, 4, 0, 0, 0, 1]),
    ("date out of range", &[0x91, 0xc7, 12, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("bytes with a long header", &[0x91, 0xc6, 0, 0, 0, 1, 7]),
    ("__proto__", &[0x81, 0xa9, b'_', b'_', b'p', b'r', b'o', b't', b'o', b'_', b'_', 0x80]),
    ("array with a long header", &[0xdd, 0, 0, 0, 1, 0xdf, 0, 0, 0, 0]),
];

/// One key, "k", with these bytes as its value.
fn state_of(value: &[u8]) -> StateView {
    StateView::new([&[0x81, 0xa1, b'k'], value].concat())
}

#[test]
fn a_value_that_was_only_read_is_never_written_however_it_was_encoded() {
    let look = |i: &mut Instance| {
        for (name, bytes) in ENCODINGS {
            let state = state_of(bytes);
            let context = Box::new(Context::new(CapabilitySet::parse(ALL.iter().copied()).unwrap(), state, limits()));
            let source = "const v = $state.k; await null; try { void (await $ext.a.b()) } catch {} return typeof v";
            let end = run(i, source, context);
            assert!(matches!(end, SegmentEnd::Suspended), "{name}: {end:?}");
            assert!(effects(i).state_mutations.is_empty(), "{name}: at the call");
            assert_eq!(value(i.resume(0, Ok(&[0xc0]), None).end), json!("object"), "{name}");
            assert!(effects(i).state_mutations.is_empty(), "{name}: at the end");
            i.reset().unwrap();
            // and a write into it is found
            let state = state_of(bytes);
            let context = Box::new(Context::new(CapabilitySet::parse(ALL.iter().copied()).unwrap(), state, limits()));
            let end = run(i, "const v = $state.k; if (Array.isArray(v)) v.push(1); else v.more = 1; return 1", context);
            assert_eq!(value(end), json!(1), "{name}");
            assert!(!effects(i).state_mutations.is_empty(), "{name}: a write");
            i.reset().unwrap();
        }
    };
    on_engine_thread(look);
    on_stack_style(look);
}

#[test]
fn codes_that_the_host_alone_gives_cannot_be_thrown() {
    on_engine_thread(|i| {
        let forge = |code: &str, more: &str| format!("throw Object.assign(new Error('m'), {{code: '{code}', {more}}})");
        let forged = [
            forge("PERMISSION_DENIED", "capability: 'state:read:admin'"),
            forge("PERMISSION_DENIED", ""),
            format!(
                "try {{ $state.other }} catch {{}}; {}",
                forge("PERMISSION_DENIED", "capability: 'state:read:admin'")
            ),
            forge("EXTENSION_NOT_FOUND", "extension: 'x'"),
            forge("METHOD_NOT_FOUND", "extension: 'a'"),
            "try { await $ext.a.none() } catch (e) { e.code = 'EXTENSION_NOT_FOUND'; throw e }".to_owned(),
        ];
        let granted = || {
            let mut context = context(json!({}), &["ext:a", "ext:none"]);
            context.extensions = Some(Registry::new([("a", &["b"][..])]));
            context
        };
        for source in &forged {
            let end = run(i, source, granted());
            let wire = error(i, end, source);
            assert_eq!((wire.code, wire.capability.as_deref()), (ErrorCode::ExecutionError, None), "{source}");
            assert!(wire.context.contains_key("code"), "{source}");
            i.reset().unwrap();
        }
        for (source, code, capability) in [
            ("$state.other", ErrorCode::PermissionDenied, Some("state:read:other")),
            (
                "try { $state.other } catch (e) { await null; throw e }",
                ErrorCode::PermissionDenied,
                Some("state:read:other"),
            ),
            ("await $ext.b.c()", ErrorCode::PermissionDenied, Some("ext:b.c")),
            ("await $ext.none.c()", ErrorCode::ExtensionNotFound, None),
            ("await $ext.a.none()", ErrorCode::MethodNotFound, None),
        ] {
            let end = run(i, source, granted());
            let wire = error(i, end, source);
            assert_eq!((wire.code, wire.capability.as_deref()), (code, capability), "{source}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn a_message_repeats_a_name_as_it_is_and_not_what_lies_behind_it() {
    on_engine_thread(|i| {
        let long = "ä".repeat(300);
        let cases = [
            (
                "await $ext.mail.send('x')".to_owned(),
                "this needs the capability 'ext:mail.send', which was not granted".to_owned(),
            ),
            (
                "await $ext['a\\0b'].c()".to_owned(),
                "this needs the capability 'ext:a\u{fffd}b.c', which was not granted".to_owned(),
            ),
            (
                "$emit('a\\0b')".to_owned(),
                "this needs the capability 'events:emit:a\u{fffd}b', which was not granted".to_owned(),
            ),
            (
                format!("$state.{long}"),
                format!("this needs the capability 'state:read:{}', which was not granted", "ä".repeat(300)),
            ),
        ];
        for (source, message) in cases {
            // what an earlier text left in the heap
            let end = run(
                i,
                &format!("'{}'.split('').join('#'); {source}", "left over ".repeat(200)),
                context(json!({}), &[]),
            );
            assert_eq!(error(i, end, &source).message, message, "{source}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn what_the_language_looks_up_is_no_violation_and_what_a_handler_asks_for_is() {
    on_engine_thread(|i| {
        let by_itself = "await $state; JSON.stringify({$state: 1}); [typeof $state.then, `${typeof $state}`, $state.toString, $state.valueOf];
            return (await (async () => $state)()) === $state";
        assert_eq!(value(run(i, by_itself, context(json!({}), &[]))), json!(true));
        assert_eq!(i.context_mut().unwrap().denials, 0);
        i.reset().unwrap();
        for asked in ["$state.get('then')", "$state.x", "'then' in $state", "Object.prototype.x = 1; $state.x"] {
            let source = format!("try {{ {asked} }} catch (e) {{ return e.code }}");
            assert_eq!(value(run(i, &source, context(json!({}), &[]))), json!("PERMISSION_DENIED"), "{asked}");
            assert_eq!(i.context_mut().unwrap().denials, 1, "{asked}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn what_is_read_through_a_read_only_view_never_gives_the_value_itself() {
    on_engine_thread(|i| {
        let source = "let self;
            Object.defineProperty(Object.prototype, 'itself', {get() { return self = this }});
            const view = $state.ro, got = view.itself, codes = [];
            for (const write of [() => { self.x = 1 }, () => { got.list.push(1) }, () => { Object.getOwnPropertyDescriptor(self, 'list').value[0] = 1 }])
                try { write() } catch (e) { codes.push(e.capability) }
            return [got === view, view.__proto__ === Object.prototype, view.list.constructor === Array, codes, view]";
        let end = run(i, source, context(json!({"ro": {"list": [0]}}), &["state:read:ro"]));
        let capability = "state:write:ro";
        assert_eq!(value(end), json!([true, true, true, [capability, capability, capability], {"list": [0]}]));
        assert_eq!(i.context_mut().unwrap().denials, 3, "each is a violation that the host has counted");
    });
}

#[test]
fn a_state_value_whose_getter_calls_an_extension_is_written_once() {
    on_stack_style(|i| {
        let source = "$state.z = {get a() { return $ext.a.b() }}; $state.n = 1; return [$state.z.a, $state.z.a]";
        let end = run(i, source, context(json!({}), ALL));
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        assert_eq!(value(i.resume(0, Ok(&[7]), None).end), json!([7, 7]));
        let mutations: Value = rmp_serde::from_slice(effects(i).state_mutations.payload().unwrap()).unwrap();
        assert_eq!(
            mutations,
            json!([{"op": "set", "key": "z", "value": {"a": 7}}, {"op": "set", "key": "n", "value": 1}])
        );
    });
}

#[test]
fn a_call_that_is_made_while_the_value_is_written_down_is_delivered() {
    on_engine_thread(|i| {
        let source = "let n = 0; return {get x() { n++; void $ext.a.b('late'); return n }}";
        let end = run(i, source, context(json!({}), ALL));
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        assert_eq!(std::mem::take(&mut i.context_mut().unwrap().new_calls).len(), 1);
        assert_eq!(value(i.resume(0, Ok(&[7]), None).end), json!({"x": 1}), "and it is written down once");
    });
}

#[test]
fn a_guest_that_waits_for_nothing_is_broken() {
    on_engine_thread(|i| {
        let source = "return await Promise.all([$ext.a.b(), $ext.a.b()])";
        let end = run(i, source, context(json!({}), ALL));
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        // the host's book says that only one is outstanding
        i.context_mut().unwrap().note_answer(None);
        let end = i.resume(0, Ok(&[1]), None).end;
        assert!(matches!(end, SegmentEnd::Broken(_)), "{end:?}");
        assert!(!i.is_sound());
    });
}

#[test]
fn a_regular_expression_that_needs_too_much_memory_ends_with_that_limit() {
    on_engine_thread(|i| {
        for source in [
            "return /^(?:a|b|c)*$/.test('a'.repeat(3_000_000))",
            "return new RegExp('(?:ab|cd)'.repeat(1_000_000)).test('a')",
        ] {
            let end = run(i, source, context(json!({}), &[]));
            assert!(matches!(end, SegmentEnd::OutOfMemory { .. }), "{source}: {end:?}");
            *i = engine().instantiate().unwrap();
        }
    });
}

#[test]
fn a_view_of_bytes_is_as_long_as_its_buffer_lets_it_be() {
    on_engine_thread(|i| {
        let source = "const grown = new ArrayBuffer(8, {maxByteLength: 16}), view = new Uint8Array(grown), wide = new Uint16Array(grown, 2);
            grown.resize(15);
            const shrunk = new ArrayBuffer(8, {maxByteLength: 8}), small = new DataView(shrunk, 1);
            shrunk.resize(3);
            return [view, wide, small].map(v => new Map([['bytes', v], ['length', v.byteLength]]))";
        let end = run(i, source, context(json!({}), &[]));
        let SegmentEnd::Done(bytes) = end else { panic!("{end:?}") };
        let rmpv::Value::Array(items) = rmpv::decode::read_value(&mut &bytes[..]).unwrap() else { panic!() };
        let lengths: Vec<_> = items
            .iter()
            .map(|item| (item["bytes"].as_slice().unwrap().len() as u64, item["length"].as_u64().unwrap()))
            .collect();
        assert_eq!(lengths, [(15, 15), (12, 12), (2, 2)]);
    });
}

#[test]
fn a_call_that_fails_is_an_error_of_its_own_whatever_the_prototypes_are() {
    let check = |i: &mut Instance| {
        let source = "const junk = [];
            for (const name of ['message', 'name', 'code'])
                Object.defineProperty(Object.prototype, name, {configurable: true, get() {
                    for (let k = 0; k < 16; k++) junk.push(new Float64Array(20).fill(k));
                    return 'inherited';
                }});
            try { await $ext.a.fail() } catch (e) { return [typeof e, e instanceof Error, Object.hasOwn(e, 'code'), e.extension, e.method] }";
        let end = run(i, source, context(json!({}), ALL));
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        let end = i.resume(0, Err(&[0x80]), None).end;
        assert_eq!(value(end), json!(["object", true, false, "a", "fail"]));
    };
    on_engine_thread(check);
    on_stack_style(check);
}
