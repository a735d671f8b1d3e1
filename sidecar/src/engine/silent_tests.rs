//! What gave a wrong result without a word: each of these gives what the language says, or says what it cannot do.

use nexus_protocol::ErrorCode;
use serde_json::{Value, json};

use super::boundary_tests::on_stack_style;
use super::context::Context;
use super::guest_error::{GuestError, Source};
use super::instance_tests::{compile, context, on_engine_thread, value};
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "events:emit:*", "ext:*"];

fn in_both_styles(check: fn(&mut Instance)) {
    on_engine_thread(check);
    on_stack_style(check);
}

fn end(i: &mut Instance, source: &str, context: Box<Context>) -> (SegmentEnd, Value) {
    let bytecode = compile(i, source);
    let end = i.run(&bytecode, context, None).end;
    let effects = i.context_mut().unwrap().take_effects();
    let mutations = effects.state_mutations.payload().map_or(json!([]), |p| rmp_serde::from_slice(p).unwrap());
    i.reset().unwrap();
    (end, mutations)
}

fn gives(i: &mut Instance, source: &str) -> Value {
    value(end(i, source, context(json!({}), ALL)).0)
}

/// Code and message of the error that the handler ends with.
fn fails(i: &mut Instance, source: &str) -> (ErrorCode, String) {
    let bytecode = compile(i, source);
    let end = i.run(&bytecode, context(json!({"list": [1]}), ALL), None).end;
    let SegmentEnd::Failed(described) = end else { panic!("{source}: {end:?}") };
    let refusals = i.context_mut().unwrap().refusals();
    let wire = GuestError::decode(&described).to_wire(ErrorCode::ExecutionError, Source::from(source), refusals);
    i.reset().unwrap();
    (wire.code, wire.message.to_string())
}

#[test]
fn each_iteration_has_its_own_variables() {
    in_both_styles(|i| {
        for (loops, expected) in [
            ("for (let i = 0; i < 3; i++) { fs.push(() => i); if (i >= 0) continue }", json!([0, 1, 2])),
            ("for (let i = 0; i < 3;) { i++; fs.push(() => i); continue }", json!([1, 2, 3])),
            ("for (let i = 0;; i++) { fs.push(() => i); if (i > 1) break; continue }", json!([0, 1, 2])),
            ("for (let i = 0;;) { fs.push(() => i); if (i++ > 1) break; continue }", json!([1, 2, 3])),
            ("l: for (let i = 0; i < 2; i++) for (;;) { fs.push(() => i); continue l }", json!([0, 1])),
            ("for (let i = 0; i < 2; i++) switch (i) { default: fs.push(() => i); continue }", json!([0, 1])),
            (
                "for (let i = 0; i < 2; i++) try { fs.push(() => i); continue } finally { fs.push(() => i + 10) }",
                json!([0, 10, 1, 11]),
            ),
            (
                "for (let i = 0; i < 2; i++) { using u = {[Symbol.dispose]() { fs.push(() => i) }}; if (i < 9) continue }",
                json!([0, 1]),
            ),
            (
                "function* g() { for (let i = 0; i < 2; i++) { yield () => i; continue } } fs.push(...g())",
                json!([0, 1]),
            ),
            ("for (let i = 0; i < 2; fs.push(() => i), i++) continue", json!([1, 2])),
        ] {
            let source = format!("const fs = []; {loops};\nreturn fs.map(f => f())");
            assert_eq!(gives(i, &source), expected, "{loops}");
        }
    });
}

#[test]
fn what_has_keys_that_are_the_same_as_text_does_not_leave_with_one_of_them() {
    in_both_styles(|i| {
        for (entries, name) in [
            ("[1, 'a'], ['1', 'b']", "1"),
            ("['true', 1], [true, 2]", "true"),
            ("[null, 1], ['x', 2], ['null', 3]", "null"),
            ("[1n, 1], [1, 2]", "1"),
            ("[NaN, 1], ['NaN', 2]", "NaN"),
            // half of a surrogate pair is no text
            ("['\\ud800', 1], ['\\udc01', 2]", "\u{fffd}"),
            ("['\\ufffd', 1], ['a\\u0416', 2], ['\\ud800', 3]", "\u{fffd}"),
            ("['x\\ud83d', 1], ['x\\ud83e', 2]", "x\u{fffd}"),
        ] {
            for way in ["return MAP", "return {deep: [MAP]}", "$state.m = MAP", "$emit('e', MAP)"] {
                let source = way.replace("MAP", &format!("new Map([{entries}])"));
                let (code, message) = fails(i, &source);
                assert_eq!(code, ErrorCode::SerializationError, "{source}");
                assert!(message.contains(&format!("two keys that are \"{name}\" as text")), "{source}: {message}");
            }
        }
        for (object, name) in [
            ("{'\\ud800': 1, b: 2, '\\udc01': 3}", "\u{fffd}"),
            ("Object.groupBy('\\u{1f600}a'.split(''), c => c)", "\u{fffd}"),
            ("{'\\ufffd': 1, '\\ud800': () => 1, '\\udfff': 3}", "\u{fffd}"),
        ] {
            for way in ["return OBJECT", "return [{deep: OBJECT}]", "$state.m = OBJECT", "$emit('e', OBJECT)"] {
                let (code, message) = fails(i, &way.replace("OBJECT", object));
                assert_eq!(code, ErrorCode::SerializationError, "{object}");
                let expected = format!("an object has two keys that are \"{name}\" as text");
                assert!(message.contains(&expected), "{object}: {message}");
            }
        }
        assert_eq!(gives(i, "return {'\\ud800': 1, '\\u{1f600}': 2}"), json!({"\u{fffd}": 1, "\u{1f600}": 2}));
        assert_eq!(gives(i, "return new Map([['\\ud800', 1], ['\\u0416', 2]])"), json!({"\u{fffd}": 1, "\u{416}": 2}));
        for (map, expected) in [
            ("[[1, 'a'], ['2', 'b'], [true, 1]]", json!({"1": "a", "2": "b", "true": 1})),
            ("[['1', () => 1], [1, 'kept']]", json!({"1": "kept"})),
            ("[[1.5, 1], [-1, 2], [0, 3]]", json!({"1.5": 1, "-1": 2, "0": 3})),
        ] {
            assert_eq!(gives(i, &format!("return new Map({map})")), expected, "{map}");
        }
    });
}

#[test]
fn what_accessors_would_give_now_is_what_the_state_has_or_an_error() {
    in_both_styles(|i| {
        for change in [
            "let v = 1; $state.o = {get g() { return v }}; v = 2",
            "let v = [1]; $state.o = {deep: {get g() { return v }}}; v.push(2)",
            "let v = 1; $state.o = new Proxy({a: 0}, {get: (t, k) => k === 'a' ? v : t[k]}); v = 2",
            "let n = 0; $state.o = {get id() { return ++n }}",
        ] {
            let (code, message) = fails(i, change);
            assert_eq!(code, ErrorCode::ExecutionError, "{change}");
            assert!(message.contains("was put into $state.o was changed afterwards"), "{change}: {message}");
        }
        // nothing comes of asking again but the answer
        for (source, told) in [
            ("$state.o = {get g() { return 1 }}", 1),
            ("$state.o = {get g() { $emit('e'); return 1 }}", 1),
            ("$state.o = {get g() { $state.p = 1; return 1 }}", 2),
            ("let v = 1; $state.o = {get g() { return v }}; v = 2; $state.o = {v}", 2),
        ] {
            let (end, mutations) = end(i, source, context(json!({}), ALL));
            assert!(matches!(end, SegmentEnd::Done(_)), "{source}: {end:?}");
            assert_eq!(mutations.as_array().unwrap().len(), told, "{source}: {mutations}");
        }
    });
}

#[test]
fn an_update_that_returns_nothing_is_refused() {
    in_both_styles(|i| {
        let (code, message) = fails(i, "$state.update('list', list => { list.push(2) })");
        assert_eq!(code, ErrorCode::ExecutionError);
        assert!(message.starts_with("the function of $state.update('list', ...) has returned undefined"), "{message}");
        let (end, mutations) = end(i, "$state.update('n', n => null)", context(json!({"n": 1}), ALL));
        assert!(matches!(end, SegmentEnd::Done(_)), "{end:?}");
        assert_eq!(mutations[0]["value"], Value::Null);
    });
}

#[test]
fn arguments_that_the_body_declares_are_not_those_of_the_list() {
    on_engine_thread(|i| {
        for (source, expected) in [
            (
                "return (function(a = () => arguments) { var arguments = 3; return [typeof a(), arguments] })()",
                json!(["object", 3]),
            ),
            (
                "return (function(a = () => arguments[1]) { var arguments; return [a(), arguments[1]] })(undefined, 4)",
                json!([4, 4]),
            ),
            (
                "return (function(a = () => (arguments = 7)) { var arguments; a(); return arguments === 7 })()",
                json!(false),
            ),
            ("return (function(a = () => (arguments = 7)) { a(); return arguments })()", json!(7)),
            (
                "return (function({b = () => arguments}) { for (var arguments of [1, 2]); return [typeof b(), arguments] })({})",
                json!(["object", 2]),
            ),
        ] {
            assert_eq!(gives(i, source), expected, "{source}");
        }
    });
}

#[test]
fn a_day_that_no_month_has_is_no_date() {
    on_engine_thread(|i| {
        let none = "['Jan 32 2020', 'Feb 0 2021', '0 Jan 2021', 'Tue Jan 45 2020 10:00', '1/32/2020', '2020-0-1', '2020-1-32', 'Jan 32 99']";
        assert_eq!(gives(i, &format!("return {none}.every(t => isNaN(Date.parse(t)))")), json!(true));
        let some = "['Jan 31 20', 'Jan 2020', '2020/1/31', '32 Jan 1']";
        assert_eq!(
            gives(i, &format!("return {some}.map(t => new Date(t).toISOString().slice(0, 10))")),
            json!(["2020-01-31", "2020-01-01", "2020-01-31", "2032-01-01"])
        );
    });
}

#[test]
fn what_the_body_of_a_handler_uses_is_disposed_of_however_it_ends() {
    in_both_styles(|i| {
        let uses = "using a = {[Symbol.dispose]() { $emit('a') }}; using b = {[Symbol.dispose]() { $emit('b') }};";
        for (rest, fails) in [("return 1", false), ("$emit('c')", false), ("throw new Error('x')", true)] {
            let source = format!("{uses} {rest}");
            let bytecode = compile(i, &source);
            let end = i.run(&bytecode, context(json!({}), ALL), None).end;
            assert_eq!(matches!(end, SegmentEnd::Failed(_)), fails, "{source}: {end:?}");
            let events = i.context_mut().unwrap().take_effects().events;
            let events: Value = rmp_serde::from_slice(events.payload().unwrap()).unwrap();
            let names: Vec<&str> = events.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
            assert_eq!(names[names.len() - 2..], ["b", "a"], "{source}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn an_error_is_about_itself_when_memory_was_wanting_before_it() {
    on_engine_thread(|i| {
        let huge = "new Array(1e7).fill(0).map(x => [x])";
        for caught in [
            format!("try {{ {huge} }} catch {{}}"),
            format!(
                "const it = {{[Symbol.iterator]: () => ({{next: () => ({{done: false}}), return() {{ {huge} }}}})}};
                try {{ for (const x of it) throw 5 }} catch {{}}"
            ),
            format!(
                "const it = {{[Symbol.iterator]: () => ({{next: () => ({{done: false}}), return() {{ {huge} }}}})}};
                try {{ for (const x of it) throw new Error('own') }} catch {{}}"
            ),
        ] {
            let (code, message) = fails(i, &format!("{caught} throw new RangeError('mine')"));
            assert_eq!((code, &*message), (ErrorCode::ExecutionError, "mine"), "{caught}");
        }
    });
}
