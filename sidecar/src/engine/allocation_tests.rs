//! Memory may run out at any allocation: each of them is refused once, and the handler then either gets through or ends with
//! MEMORY_LIMIT; so does who compiles it. The guest is deterministic, so the n-th allocation of a run is that of every run.

use std::sync::Arc;

use nexus_protocol::CapabilitySet;
use serde_json::{Value, json};

use super::context::Context;
use super::guest_error::GuestError;
use super::instance_tests::{compile, engine, limits, on_engine_thread};
use super::registry::Registry;
use super::*;

/// Passes through every part of the shim. Whatever is thrown is looked at: a property that was never made throws when it is
/// read, or is no value at all.
const HANDLER: &str = "
    let leaks = 0;
    function look(e) {
        if (typeof e !== 'object' || e === null) return;
        for (const key of Reflect.ownKeys(e)) try { if (typeof e[key] === 'undefined') leaks++; } catch { leaks++; }
    }
    const attempt = f => { try { return f(); } catch (e) { look(e); } };
    attempt(() => $state.o.a = 2);
    attempt(() => $state.secret);
    attempt(() => $state.ro.list[0]);
    attempt(() => { $state.ro.list[0] = 1; });
    attempt(() => Object.getOwnPropertyDescriptor($state.ro, 'list'));
    attempt(() => $state.set('n', {a: [1, 'x', 2.5, 7n, new Date(0), new Uint8Array(3)], m: new Map([[1, 2]]), s: new Set([1])}));
    attempt(() => $state.update('count', n => n + 1));
    attempt(() => [delete $state.gone, 'o' in $state, Object.keys($state)]);
    attempt(() => { $state.keys = 1; });
    attempt(() => { $state = 1; });
    attempt(() => { $state.when.setTime(1); });
    attempt(() => [`${$ext.a}`, $scope.nothing()]);
    attempt(() => { const {x} = null; });
    attempt(() => $emit('e', {text: 'x'.repeat(300)}));
    attempt(() => $emit.toast('t'));
    attempt(() => $emit('denied'));
    attempt(() => $view.setFilter('v', {a: 1}));
    attempt(() => $view.focus('denied'));
    attempt(() => $log('a', {b: 1}, new Error('logged')));
    attempt(() => $emit('e', {big: 1n << 70n}));
    attempt(() => [$ext.exists('a'), $ext.list(), $args.x, $scope.y]);
    attempt(() => $ext.denied.m);
    let got;
    try { got = [WAIT $ext.a.ok({x: 1}, 'text')]; } catch (e) { look(e); }
    try { WAIT $ext.a.fail(); } catch (e) { look(e); }
    try { WAIT $ext.a.none(); } catch (e) { look(e); }
    return {leaks, got: got ?? null, text: 'x'.repeat(100), later: [Promise.resolve({p: (async () => { await null; return 'x' })()})]};";

const FAILS: &str = "
    class Odd extends Error { constructor() { super('odd', {cause: new TypeError('inner')}); this.code = 'ODD'; this.list = [1, {a: 1}]; } }
    $state.o.a = 3;
    throw new AggregateError([new Odd(), 'text'], 'all');";

fn new_context() -> Box<Context> {
    let when = rmpv::Value::Ext(-1, vec![0, 0, 0, 1]);
    let state = json!({"o": {"a": 1}, "ro": {"list": [[1]]}, "gone": 1, "count": 1, "secret": 1});
    let state = rmpv::decode::read_value(&mut &rmp_serde::to_vec(&state).unwrap()[..]).unwrap();
    let rmpv::Value::Map(mut state) = state else { panic!("a map") };
    state.push(("when".into(), when));
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &rmpv::Value::Map(state)).unwrap();
    let grants =
        ["state:read:when", "state:read:o", "state:read:ro", "state:read:count", "state:read:gone", "state:read:n"];
    let more = [
        "state:write:o",
        "state:write:n",
        "state:write:count",
        "state:write:gone",
        "events:emit:e",
        "events:emit:toast",
    ];
    let rest = ["view:update:v", "ext:a"];
    let grants = grants.into_iter().chain(more).chain(rest);
    let state = StateView::new(bytes);
    let mut context = Context::new(CapabilitySet::parse(grants).unwrap(), state, limits());
    context.extensions = Some(Registry::new([("a", &["ok", "fail"][..])]));
    context.args = rmp_serde::to_vec(&json!({"x": [1]})).unwrap();
    Box::new(context)
}

/// How the handler ends with its n-th allocation refused, and whether there was one.
fn run(instance: &mut Instance, bytecode: &[u8], n: u32) -> (SegmentEnd, bool) {
    instance.fail_allocation(n);
    let mut end = instance.run(bytecode, new_context(), None).end;
    while matches!(end, SegmentEnd::Suspended) {
        let calls = std::mem::take(&mut instance.context_mut().unwrap().new_calls);
        let call = calls.first().expect("a call that was made in this segment");
        let failed = rmp_serde::to_vec_named(&json!({"message": "gone", "name": "Gone", "code": "G"})).unwrap();
        let answer = rmp_serde::to_vec(&json!({"text": "x", "list": [1, 2]})).unwrap();
        end = instance.resume(call.number, if call.method == "fail" { Err(&failed) } else { Ok(&answer) }, None).end;
    }
    (end, instance.has_failed_allocation())
}

fn each_allocation(engine: &Arc<Engine>, wait: &'static str) {
    let engine = engine.clone();
    let all = move || {
        let mut instance = engine.instantiate().unwrap();
        let works = compile(&mut instance, &HANDLER.replace("WAIT", wait));
        let fails = compile(&mut instance, FAILS);
        for (bytecode, ends_well) in [(&works, true), (&fails, false)] {
            let (mut succeeded, mut ended) = (0, 0);
            for n in 1.. {
                let (end, refused) = run(&mut instance, bytecode, n);
                match end {
                    SegmentEnd::Done(bytes) => {
                        let value: Value = rmp_serde::from_slice(&bytes).unwrap();
                        assert_eq!(value["leaks"], 0, "allocation {n}: {value}");
                        succeeded += 1;
                    }
                    SegmentEnd::OutOfMemory { .. } => ended += 1,
                    SegmentEnd::Failed(e) if !refused && !ends_well => {
                        assert_eq!(GuestError::decode(&e).message, "all");
                    }
                    other => panic!("allocation {n}, {wait:?}: {other:?}"),
                }
                // such an instance is not to be used again; here it is, after a reset of every byte
                instance.reset().unwrap();
                assert_eq!(instance.first_difference(), None, "allocation {n}");
                if !refused {
                    assert!(n > 100, "the handler makes {n} allocations");
                    break;
                }
            }
            assert!(ended > 20 && (!ends_well || succeeded > 20), "{succeeded} got through, {ended} ended");
        }
    };
    std::thread::Builder::new().stack_size(thread_stack_bytes(1 << 20)).spawn(all).unwrap().join().unwrap();
}

/// Much of the language, and of what it has built in, none of it touched before; no part of it catches anything.
const WORK: &str = "
    const text = 'ab'.repeat(20), list = [3, 1, 2].map(n => ({n})), {a, ...rest} = {a: [1], b: {c: 2}};
    class Base { #p = 1; static s = 2; get p() { return this.#p } }
    class Derived extends Base { constructor() { super(); this.q = [...'xyz'] } }
    const made = new Derived(), m = new Map([[made, 1]]), s = new Set(list), w = new WeakRef(made);
    function* g() { yield* [1, 2] }
    const texts = [text.split(''), text.replace(/b(?<c>.)/g, '$<c>'), text.padStart(90), `${made.p}${a}`, JSON.stringify({list, rest}), text.toUpperCase()];
    const numbers = [1.5.toFixed(2), (2n ** 70n).toString(), parseFloat('1e9'), Number('12'), Math.max(...list.map(l => l.n)), new Date(0).toISOString()];
    const all = [list.toSorted((x, y) => x.n - y.n), list.flatMap(x => [x, x]), [...g()], Object.entries(rest), Array.from({length: 9}, (_, i) => i),
        new Uint16Array([1, 2]).map(x => x + 1), structured(rest), Reflect.ownKeys(made), new Proxy(rest, {}).b.c, Symbol('x').toString(), w.deref() === made];
    function structured(o) { return JSON.parse(JSON.stringify(o)) }
    [..._(texts), numbers.join(), all.length];
    function _(x) { return x.concat(m.size, s.size) }";

/// What becomes of it, and whether its `catch` was reached, for each allocation that is refused once.
fn of_each_refusal(source: &str, look: impl Fn(u32, &SegmentEnd, bool) + Send + 'static) {
    let source = source.replace("WORK", WORK);
    let all = move || {
        let mut instance = engine().instantiate().unwrap();
        let bytecode = compile(&mut instance, &source);
        for n in 1.. {
            instance.fail_allocation(n);
            let end = instance.run(&bytecode, new_context(), None).end;
            if !instance.has_failed_allocation() {
                assert!(n > 200, "the handler makes {n} allocations");
                break;
            }
            let effects = instance.context_mut().expect("a context").take_effects();
            look(n, &end, effects.events.pieces().is_some());
            instance.reset().unwrap();
        }
    };
    std::thread::Builder::new().stack_size(thread_stack_bytes(1 << 20)).spawn(all).unwrap().join().unwrap();
}

#[test]
fn whichever_allocation_fails_what_is_thrown_for_it_is_told_as_its_limit_and_nothing_else_is() {
    let by_memory = |end: &SegmentEnd| match end {
        SegmentEnd::OutOfMemory { .. } => true,
        SegmentEnd::Failed(described) => {
            assert_eq!(GuestError::decode(described).message, "mine");
            false
        }
        other => panic!("{other:?}"),
    };
    // who catches it and goes on fails with what it throws then
    for source in [
        "try { WORK } catch { $emit('e') } throw new Error('mine')",
        "try { await (async () => { await null; WORK })() } catch { $emit('e') } throw new Error('mine')",
        "await Promise.resolve().then(() => { WORK }).catch(() => { $emit('e') }); throw new Error('mine')",
        "(() => { WORK }).call.call(() => { try { WORK } catch { $emit('e') } }); throw new Error('mine')",
    ] {
        of_each_refusal(source, move |n, end, caught| assert_eq!(by_memory(end), !caught, "{n}: {end:?}\n{source}"));
    }
    // who does not, or throws it again, fails for want of memory, whatever the engine said
    for source in [
        "WORK; throw new Error('mine')",
        "try { WORK } finally { $emit('e') } throw new Error('mine')",
        "try { WORK } catch (e) { e.message = 'mine'; e.code = 'MINE'; throw e } throw new Error('mine')",
        "await (async () => { await null; WORK })(); throw new Error('mine')",
    ] {
        of_each_refusal(source, move |n, end, _| assert!(by_memory(end), "{n}: {end:?}\n{source}"));
    }
}

#[test]
fn who_has_used_up_the_memory_and_goes_on_fails_with_its_own_error() {
    on_engine_thread(|i| {
        let fill =
            "const kept = []; try { for (;;) kept.push(new Array(1000).fill(kept.length)) } catch (e) { caught = e }";
        for (rest, message) in [
            ("throw new Error('mine')", Some("mine")),
            ("kept.length = 0; null.x", Some("cannot read property 'x' of null")),
            ("kept.length = 0; throw new InternalError(caught.message)", Some("out of memory")),
            ("kept.length = 0; throw Object.assign(new Error('copy'), caught)", Some("copy")),
            ("throw caught", None),
            ("kept.length = 0; await null; throw caught", None),
            ("kept.push('x'.repeat(4e6))", None),
        ] {
            let bytecode = compile(i, &format!("let caught; {fill} {rest}"));
            let end = i.run(&bytecode, new_context(), None).end;
            match (&end, message) {
                (SegmentEnd::OutOfMemory { .. }, None) => {}
                (SegmentEnd::Failed(told), Some(message)) => {
                    assert_eq!(GuestError::decode(told).message, message, "{rest}")
                }
                _ => panic!("{rest}: {end:?}"),
            }
            i.reset().unwrap();
        }
    });
}

/// Every part of the language that the parser has a case of its own for.
const COMPILED: &[&str] = &[
    HANDLER,
    FAILS,
    "label: for (const [a, {b = 1, ...c}] of [[1, {}]]) { if (a) continue label; switch (b) { case 1: break label; default: } }
     class A extends Object { static #p = 1; static { this.q = A.#p } get x() { return super.x } async *g() { yield* [await 1] } }
     const f = (x, ...y) => `${x}${y}`, o = {[f]: 1, f, get g() { return 1 }, async h() {}, *i() { yield 1 }}, n = 2n ** 70n;
     try { throw /(?<year>\\d{4})[\\p{L}]+|a{2,3}/vu } catch ({message}) { using d = null } finally { with (o) f`t${n}` }
     var v = new.target?.x ?? this; do { v ||= 1 } while (false); for (const k in o) delete o[k]; for await (const k of []) void k; return v",
    "return {",
    "const a = 1; const a = 2",
    "/(/",
];

#[test]
fn whichever_allocation_fails_a_compilation_gets_through_or_ends_with_its_limit() {
    let all = || {
        let mut instance = engine().instantiate().unwrap();
        for source in COMPILED {
            let source = source.replace("WAIT", "await");
            let mut ended = 0;
            for n in 1.. {
                instance.fail_allocation(n);
                let compiled = instance.compile(&source, 8 << 20, None);
                let refused = instance.has_failed_allocation();
                match compiled {
                    Compiled::OutOfMemory { wanted } if refused && wanted > 0 => {
                        assert!(!instance.is_sound());
                        ended += 1;
                    }
                    Compiled::Bytecode(_) | Compiled::Refused(_) if !refused => {}
                    other => panic!("allocation {n} of {source}: {other:?}"),
                }
                // as above
                instance.reset().unwrap();
                assert_eq!(instance.first_difference(), None, "allocation {n} of {source}");
                if !refused {
                    break;
                }
            }
            assert!(ended > 10, "{ended} ended: {source}");
        }
    };
    std::thread::Builder::new().stack_size(thread_stack_bytes(1 << 20)).spawn(all).unwrap().join().unwrap();
}

#[test]
fn a_source_that_needs_too_much_memory_is_told_how_much() {
    on_engine_thread(|i| {
        let source = format!("return [{}]", "[1,2],".repeat(100_000));
        let compiled = i.compile(&source, 4 << 20, None);
        assert!(matches!(compiled, Compiled::OutOfMemory { wanted } if wanted > 4 << 20), "{compiled:?}");
    });
}

#[test]
fn whichever_allocation_fails_the_handler_gets_through_or_ends_with_its_limit() {
    each_allocation(&engine(), "await");
}

#[test]
fn whichever_allocation_fails_in_stack_style_the_handler_gets_through_or_ends_with_its_limit() {
    each_allocation(&engine().start_stack_style().expect("the engine starts"), "");
}
