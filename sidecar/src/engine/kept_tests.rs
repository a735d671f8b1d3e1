//! What is written into the state arrives, or is refused where it is written: what no encoding holds is not lost without a word.

use serde_json::{Value, json};

use super::boundary_tests::on_stack_style;
use super::instance_tests::{compile, context, on_engine_thread, value};
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "ext:*"];

/// Each is written on a fresh instance, and gives what it is written with, and the message that it is refused with.
fn refusals(writes: &[(&str, &str)]) {
    let writes: Vec<(String, String)> = writes.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let check = move |i: &mut Instance| {
        for (write, message) in &writes {
            for first in ["", "'use strict'; "] {
                let source =
                    format!("{first}try {{ {write} }} catch (e) {{ return [e.name, e.message] }} return 'lost'");
                let found = run(i, &source, state());
                let expected = json!(["TypeError", message]);
                assert!(
                    found[0] == expected[0] && found[1].as_str().is_some_and(|m| m.contains(message.as_str())),
                    "{source}: {found}"
                );
            }
        }
    };
    on_engine_thread(check.clone());
    on_stack_style(check);
}

fn state() -> Value {
    json!({"user": {"name": "Ada", "tags": ["x"]}, "list": [1, 2], "b": {"n": 1}})
}

fn run(i: &mut Instance, source: &str, state: Value) -> Value {
    let bytecode = compile(i, source);
    let found = value(i.run(&bytecode, context(state, ALL), None).end);
    i.reset().unwrap();
    found
}

/// The mutations, in their order, and how it ended.
fn written(i: &mut Instance, source: &str, grants: &[&str]) -> (Value, Option<String>) {
    let bytecode = compile(i, source);
    let end = i.run(&bytecode, context(state(), grants), None).end;
    let effects = i.context_mut().unwrap().take_effects();
    let mutations = effects.state_mutations.payload().map_or(json!([]), |p| rmp_serde::from_slice(p).unwrap());
    i.reset().unwrap();
    let error = match end {
        SegmentEnd::Failed(described) => Some(String::from_utf8_lossy(&described).into_owned()),
        _ => None,
    };
    (mutations, error)
}

const OF_ARRAY: &str = "an array in $state has elements only";
const OF_SYMBOL: &str = "keys in $state are strings";
const OF_HIDDEN: &str = "a property that is not enumerable would be lost from $state";
const OF_ACCESSOR: &str = "$state holds values, not accessors";
const OF_LOCK: &str = "cannot be frozen or sealed, and has no prototype";
const OF_FLAGS: &str = "a key of $state can be written, listed and deleted, always";

// shows P-nothing-is-lost
#[test]
fn what_a_state_could_not_hold_is_refused_where_it_is_written() {
    refusals(&[
        ("$state.list.x = 1", OF_ARRAY),
        ("$state.list['-1'] = 1", OF_ARRAY),
        ("const l = $state.user.tags; l.note = 'n'", OF_ARRAY),
        ("const own = [1]; $state.own = own; own.x = 1", OF_ARRAY),
        ("Object.assign($state.list, {x: 1})", OF_ARRAY),
        ("Reflect.set({}, 'x', 1, $state.list)", OF_ARRAY),
        ("const own = Object.assign([1], {x: 1}); $state.own = own", OF_ARRAY),
        ("const own = Object.assign([1], {x: 1}); $state.own = {own}", OF_ARRAY),
        ("$state.user[Symbol.for('s')] = 1", OF_SYMBOL),
        ("$state.list[Symbol.for('s')] = 1", OF_SYMBOL),
        ("$state[Symbol.for('s')] = 1", "keys of $state are strings"),
        ("Object.defineProperty($state.user, 'x', {value: 1})", OF_HIDDEN),
        ("Object.defineProperty($state.user, 'name', {enumerable: false})", OF_HIDDEN),
        ("Object.defineProperty($state.list, 5, {value: 1})", OF_HIDDEN),
        ("Object.defineProperty($state.user, 'x', {get() { return 1 }, enumerable: true})", OF_ACCESSOR),
        ("$state.user.__defineGetter__('name', () => 1)", OF_ACCESSOR),
        ("Object.defineProperty($state, 'x', {get() { return 1 }})", OF_ACCESSOR),
        ("Object.defineProperty($state, 'x', {value: 1, enumerable: false})", OF_FLAGS),
        ("Object.defineProperty($state, 'x', {value: 1, writable: false})", OF_FLAGS),
        ("Object.preventExtensions($state)", OF_LOCK),
        ("Object.freeze($state)", OF_LOCK),
        ("Object.seal($state)", OF_LOCK),
        ("Reflect.preventExtensions($state)", OF_LOCK),
        ("Object.setPrototypeOf($state, {x: 1})", OF_LOCK),
        ("Reflect.setPrototypeOf($state, {x: 1})", OF_LOCK),
        ("$state.m = new Map(); $state.m.x = 1", "a Map or Set in $state"),
        ("$state.m = {deep: [new Set()]}; $state.m.deep[0].x = 1", "a Map or Set in $state"),
        ("$state.e = new Error('e'); $state.e.code = 1", "of an Error in $state name and message are kept"),
        ("$state.n = Object(5); $state.n.x = 1", "an object that wraps"),
        ("$state.f = () => 1", "no functions and no symbols"),
        ("$state.set('f', class {})", "no functions and no symbols"),
        ("$state.f = Symbol('x')", "no functions and no symbols"),
        ("delete globalThis.$state", "$state cannot be deleted"),
        ("delete globalThis.$args", "$args cannot be deleted"),
        ("delete $emit.toast", "$emit.toast cannot be deleted"),
    ]);
    // `delete` of a name is not for strict code
    on_engine_thread(|i| {
        for name in ["$args", "$scope", "$state", "$emit", "console", "crypto"] {
            let found = run(i, &format!("try {{ delete {name} }} catch (e) {{ return e.message }}"), state());
            assert_eq!(found, format!("{name} cannot be deleted"));
        }
    });
}

#[test]
fn a_change_of_what_was_put_into_the_state_arrives_under_every_name() {
    let check = |i: &mut Instance| {
        let read_only = &["state:read:*", "state:write:q"][..];
        for (source, grants, q) in [
            // it holds a part of the state that may only be read
            ("const o = {z: $state.b}; $state.q = o; o.c = 3", read_only, json!({"z": {"n": 1}, "c": 3})),
            (
                "const o = {z: [$state.b, $state.list]}; $state.q = o; o.z.push(1)",
                read_only,
                json!({"z": [{"n": 1}, [1, 2], 1]}),
            ),
            ("$state.q = {z: $state.b}; $state.q.z = 5", read_only, json!({"z": 5})),
            ("const o = {z: $state.b}; $state.q = o; o.c = 3", ALL, json!({"z": {"n": 1}, "c": 3})),
            // and what may only be read where it is can be written where it was put
            ("$state.q = {z: $state.b}; $state.q.z.n = 5", read_only, json!({"z": {"n": 5}})),
            ("const o = {z: [$state.b]}; $state.q = o; o.z[0].n = 5", read_only, json!({"z": [{"n": 5}]})),
            ("$state.q = $state.b; $state.q.n = 5", read_only, json!({"n": 5})),
            ("$state.q = {l: []}; $state.q.l.push($state.b)", read_only, json!({"l": [{"n": 1}]})),
            // its class has a getter, which is no part of it
            (
                "class P { n = 1; get twice() { return this.n * 2 } } const p = new P(); $state.q = p; p.n = 2",
                ALL,
                json!({"n": 2}),
            ),
            ("(function () { $state.q = arguments; arguments[0] = 7 })(1)", ALL, json!({"0": 7})),
            (
                "const e = new TypeError('x'); $state.q = e; e.message = 'y'",
                ALL,
                json!({"name": "TypeError", "message": "y"}),
            ),
            ("const m = new Map([['a', {}]]); $state.q = m; m.get('a').x = 1", ALL, json!({"a": {"x": 1}})),
            ("$state.q = {a: 1, b: 2}; const q = $state.q, a = q.a; delete q.a; q.a = a", ALL, json!({"b": 2, "a": 1})),
            ("$state.q = 'abc'.match(/b/); $state.q.push('c')", ALL, json!(["b", "c"])),
            // what has accessors or is a Proxy is copied, and the copy is what the state has
            ("$state.q = {get v() { return 1 }}; $state.q.c = 3", ALL, json!({"v": 1, "c": 3})),
            ("const p = new Proxy({a: 1}, {}); $state.q = p; $state.q.b = p.a", ALL, json!({"a": 1, "b": 1})),
        ] {
            let (mutations, error) = written(i, source, grants);
            assert_eq!(error, None, "{source}");
            let last = mutations.as_array().unwrap().iter().rfind(|m| m["key"] == "q").unwrap();
            assert_eq!(last["value"].to_string(), q.to_string(), "{source}");
        }
        for source in [
            "const o = {get v() { return 1 }}; $state.q = o; o.c = 3",
            "const o = {get v() { return 1 }, deep: {n: 1}}; $state.q = o; o.deep.n = 2",
            "const p = new Proxy({}, {}); $state.q = p; p.c = 3",
            "const t = {}; $state.q = {p: new Proxy(t, {})}; t.c = 3",
            "const o = {all: $state}; $state.q = o; o.c = 3",
            "const o = {get v() { return 1 }}; $state.q = o; delete o.v",
        ] {
            let (_, error) = written(i, source, ALL);
            assert!(error.is_some_and(|e| e.contains("was put into $state.q was changed afterwards")), "{source}");
        }
        // what is a name of the state for the language is none for the state
        let inherits = "const own = Object.create($state); own.x = 1; Reflect.set($state, 'y', 2, own); const p = new Proxy($state, {}); p.z = 3;
            return [Object.keys(own), $state.x ?? null, $state.y ?? null, $state.z]";
        assert_eq!(run(i, inherits, state()), json!([["x", "y"], null, null, 3]));
    };
    on_engine_thread(check);
    on_stack_style(check);
}

#[test]
fn a_parameter_is_one_variable_for_its_list_and_its_body() {
    on_engine_thread(|i| {
        for (source, expected) in [
            ("const g = (x, f = () => x) => { x = 2; return f() }; return g(1)", json!(2)),
            ("const g = (x, f = () => { x = 3 }) => { f(); return x }; return g(1)", json!(3)),
            ("function g(x, f = () => x++) { f(); f(); return x } return g(1)", json!(3)),
            ("function g({x}, f = () => x) { x = 2; return f() } return g({x: 1})", json!(2)),
            ("function g(a, ...[b, f = () => b]) { b = 9; return f() } return g(1, 2)", json!(9)),
            ("function g(x, f = () => { x = 5 }) { const h = () => x; f(); return h() } return g(1)", json!(5)),
            ("function g(x, y = x++) { return [x, y] } return g(1)", json!([2, 1])),
            ("async function g(x, f = () => x) { x = 2; await 0; return f() } return await g(1)", json!(2)),
            ("function* g(x, f = () => x) { x = 2; yield f() } return [...g(1)]", json!([2])),
            ("class A { m(x, f = () => x) { x = 2; return f() } } return new A().m(1)", json!(2)),
            ("function g(f = () => typeof v, v = 1) { v = 's'; return f() } return g()", json!("string")),
            (
                "function g(x, f = () => x) { for (x of [7, 8]); [x] = [x + 1]; x += 1; return f() } return g(1)",
                json!(10),
            ),
            // the body has one of its own
            (
                "function g(x, f = () => x) { var x; const was = x; x = 2; return [was, x, f()] } return g(1)",
                json!([1, 2, 1]),
            ),
            ("function g(x, f = () => x) { var x = 5; return [x, f()] } return g(1)", json!([5, 1])),
            (
                "function g(x, f = () => x) { function x() {} return [typeof x, f()] } return g(1)",
                json!(["function", 1]),
            ),
            ("function g({x}, f = () => x) { var x = 5; return [x, f()] } return g({x: 1})", json!([5, 1])),
            ("function g(x, y = x = 4) { var x; return x } return g(1)", json!(4)),
            ("function g(x, f = () => x) { { let x = 3 } return f() } return g(1)", json!(1)),
            ("function g(x, f = () => arguments[0]) { x = 2; return f() } return g(1)", json!(1)),
        ] {
            assert_eq!(run(i, source, state()), expected, "{source}");
        }
    });
}

#[test]
fn every_power_of_two_has_its_shortest_text() {
    on_engine_thread(|i| {
        let source = "const out = []; for (let e = -1074; e < 1024; e++) out.push(String(2 ** e)); return out";
        let found = run(i, source, state());
        for (text, exponent) in found.as_array().unwrap().iter().zip(-1074..) {
            let number: f64 = text.as_str().unwrap().parse().unwrap();
            assert_eq!(number, 2f64.powf(f64::from(exponent)), "2 ** {exponent}");
            let digits = |text: &str| {
                let text = text.split('e').next().unwrap().replace('.', "");
                text.trim_matches('0').len()
            };
            // the standard library writes the shortest too
            assert_eq!(digits(text.as_str().unwrap()), digits(&format!("{number:e}")), "2 ** {exponent}: {text}");
        }
    });
}

#[test]
fn a_date_has_one_year() {
    on_engine_thread(|i| {
        let source = "return ['2021-108', '2021-108-01', '2021-00', '2021-1', '2021-01-02', '1 Jan 2021', 'Jan 1 2021', '2021'].map(t => Date.parse(t))";
        let day = 86_400_000i64;
        let first = 1_609_459_200_000i64;
        assert_eq!(run(i, source, state()), json!([null, null, null, first, first + day, first, first, first]));
    });
}

#[test]
fn what_is_deep_is_written_down_in_time() {
    on_engine_thread(|i| {
        // as many objects, within one another and beside one another
        let deep = "let o = {}; for (let n = 0; n < 3000; n++) o = {o};";
        let flat = "const o = []; for (let n = 0; n < 3000; n++) o.push({o: n});";
        let mut least = |made: &str| {
            let source = format!(
                "{made} let n = 0; for (let i = 0; i < 10; i++) n += JSON.stringify(o.o ? {{o}} : o).length; return n"
            );
            let mut one = || {
                let before = crate::os::thread_cpu_time();
                run(i, &source, state());
                crate::os::thread_cpu_time() - before
            };
            (0..3).map(|_| one()).min().unwrap()
        };
        let (deep, flat) = (least(deep), least(flat));
        assert!(deep < 8 * flat, "{deep:?} within one another, {flat:?} beside one another");
        let source = "let o = {}; for (let n = 0; n < 1500; n++) o = {o}; const text = JSON.stringify(o);
            const twice = JSON.stringify([o, o]) === '[' + text + ',' + text + ']';
            const loop = {}; loop.a = [{loop}]; let cyclic = 0;
            for (const v of [loop, loop, {toJSON: () => loop}]) try { JSON.stringify(v) } catch (e) { cyclic += e.name === 'TypeError' }
            // one that is within itself by its own toJSON alone is not cyclic where it is written down first
            const inner = {n: 1}, outer = {inner, toJSON() { return {text: JSON.stringify(inner), inner} }};
            return [text.length, twice, cyclic, JSON.stringify(outer), JSON.stringify(outer)]";
        let outer = r#"{"text":"{\"n\":1}","inner":{"n":1}}"#;
        assert_eq!(run(i, source, state()), json!([1500 * 6 + 2, true, 3, outer, outer]));
    });
}
