//! Every entry of the shim under everything that a handler can put in its way: a table of entries, a table of hostilities, in
//! both suspend styles.
//!
//! A hostility runs code of the handler where the shim reads something, and that code does what a handler can do there: it
//! writes state, emits, makes calls, and counts what it did. An entry must then come to what it comes to without the hostility,
//! its effects must be those, and nothing that was counted may be missing or be there twice.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use nexus_protocol::{CapabilitySet, EffectList};
use serde_json::{Value, json};

use super::context::Context;
use super::guest_error::GuestError;
use super::instance_tests::{compile, engine, limits};
use super::registry::Registry;
use super::*;

/// What the handler does, three times over. `V` is a value that encodes to {"a": 1}, `K` a key that reads "o". `WAIT` is
/// `await` in promise style and nothing in stack style.
const ENTRIES: &[(&str, &str)] = &[
    ("get", "$state.get(K).a"),
    ("property", "$state.o.a"),
    ("absent key", "typeof $state.absent"),
    ("set", "void $state.set('n', V)"),
    ("assignment", "void ($state.n = V)"),
    ("set to a list", "void ($state.n = [1, V, , 'x'])"),
    ("set, then read", "($state.n = V, $state.n.a)"),
    ("write inside of a value", "$state.o.b = i"),
    ("delete", "$state.delete('gone')"),
    ("delete property", "delete $state.gone"),
    ("has", "$state.has(K)"),
    ("in", "'o' in $state"),
    ("keys", "$state.keys().filter(k => k !== 'touched').length"),
    ("own keys", "Object.keys($state).filter(k => k !== 'touched').length"),
    ("update", "$state.update('count', n => n + 1)"),
    ("descriptor", "Object.getOwnPropertyDescriptor($state, 'o').value.a"),
    (
        "define",
        "void Object.defineProperty($state, 'n', {value: V, writable: true, enumerable: true, configurable: true})",
    ),
    ("read-only value", "[$state.ro.list[0].x, $state.ro.list.length]"),
    ("read-only descriptor", "Object.getOwnPropertyDescriptor($state.ro, 'list').value.length"),
    ("read-only write", "$state.ro.list.push(1)"),
    ("read-only define", "Object.defineProperty($state.ro, 'x', {value: 1})"),
    ("language names", "[typeof $state.then, typeof $state.toJSON, typeof $state.hasOwnProperty]"),
    ("awaited state", "(await $state) === $state"),
    ("denied get", "$state.secret"),
    ("denied get by method", "$state.get('secret')"),
    ("denied set", "$state.secret = V"),
    ("denied delete", "delete $state.secret"),
    ("denied has", "'secret' in $state"),
    ("denied key of a method's name", "$state.keys = 1"),
    ("assigned $state", "$state = V"),
    ("assigned $args", "$args = V"),
    ("emit", "void $emit('e', V)"),
    ("emit nothing", "void $emit('e')"),
    ("toast", "void $emit.toast('hello')"),
    ("denied emit", "$emit('denied', V)"),
    ("no event", "$emit()"),
    ("setFilter", "void $view.setFilter('v', V)"),
    ("scrollTo", "void $view.scrollTo('v', V)"),
    ("focus", "void $view.focus('v')"),
    ("command", "void $view.command('v', 'c', V)"),
    ("denied view", "$view.focus('denied')"),
    ("no view", "$view.command('v')"),
    ("log", "void $log('text', V, [1], null, () => 1, Symbol('s'))"),
    ("log of an error", "void console.error(new Error('logged'))"),
    ("call", "WAIT $ext.a.ok(V, 'x')"),
    ("failed call", "WAIT $ext.a.fail('x')"),
    ("denied call", "WAIT $ext.denied.call(V)"),
    ("no extension", "WAIT $ext.none.call(V)"),
    ("no method", "WAIT $ext.a.none(V)"),
    ("changed $ext", "$ext.a = 1"),
    ("$ext as text", "`${$ext} ${$ext.a}`"),
    ("call of nothing", "$scope.nothing()"),
    ("nothing taken apart", "(({x}) => x)(null)"),
    ("nothing iterated", "(([x]) => x)(undefined)"),
    ("exists", "[$ext.exists('a'), $ext.exists('none')]"),
    ("methods", "$ext.methods('a')"),
    ("list", "$ext.list()"),
    ("args", "[$args.x, $args.list.length]"),
    ("scope", "$scope.y"),
    ("clock", "typeof $time.now() === typeof Date.now()"),
    ("random bytes", "crypto.getRandomValues(new Uint8Array(4)).length"),
    ("random bytes of no array", "crypto.getRandomValues([1])"),
    ("value that cannot leave", "$emit('e', {big: 1n << 70n})"),
    ("returned value", "V"),
    ("returned promise", "(async () => V)()"),
    ("returned kinds", "[map, set, new Date(0), new Uint8Array(2), 5n, , undefined, [V]]"),
];

/// What is in the way. `mischief()` does something that counts, `journal` counts it.
const HOSTILITIES: &[(&str, &str)] = &[
    ("nothing", ""),
    (
        "getters on Object.prototype",
        "for (const name of ['name', 'message', 'code', 'capability', 'extension', 'method', 'stack', 'cause', 'errors', 'then', 'toJSON',
            'length', 'level', 'key', 'ok', 'b', 'secret', 'absent', 'index', 'raw', 'constructor', 'error', 'suppressed'])
            Object.defineProperty(Object.prototype, name, {configurable: true, get() { mischief() }, set(v) {
                Object.defineProperty(this, name, {value: v, writable: true, enumerable: true, configurable: true}) }})",
    ),
    (
        "getters that forge",
        "for (const name of ['code', 'capability', 'extension', 'method'])
            Object.defineProperty(Object.prototype, name, {configurable: true, get() { mischief(); return 'PERMISSION_DENIED' }})",
    ),
    ("getters at indexes", "for (let k = 0; k < 4; k++)
            Object.defineProperty(Array.prototype, k, {configurable: true, get() { mischief() }, set(v) {
                Object.defineProperty(this, k, {value: v, writable: true, enumerable: true, configurable: true}) }})"),
    ("prepareStackTrace", "Error.prepareStackTrace = () => { mischief(); return 'mine' }"),
    ("prepareStackTrace that throws", "Error.prepareStackTrace = () => { mischief(); throw new Error('no') }"),
    ("stackTraceLimit", "Error.stackTraceLimit = {valueOf() { mischief(); return 10 }}"),
    ("no stack", "Error.stackTraceLimit = 0"),
    (
        "accessors on Error.prototype",
        "for (const name of ['name', 'message', 'stack', 'toString'])
            Object.defineProperty(Error.prototype, name, {configurable: true, get() { mischief(); throw 1 }, set() { mischief() }})",
    ),
    ("values with accessors", "makeValue = () => ({get a() { mischief(); return 1 }})"),
    (
        "values that are Proxies",
        "makeValue = () => new Proxy({a: 1}, {get(t, k) { mischief(); return t[k] }, ownKeys(t) { mischief(); return Reflect.ownKeys(t) },
            getOwnPropertyDescriptor(t, k) { mischief(); return Reflect.getOwnPropertyDescriptor(t, k) }, has() { mischief(); return true }})",
    ),
    ("keys that are objects", "makeKey = () => ({toString() { mischief(); return 'o' }})"),
    ("keys with toPrimitive", "makeKey = () => ({[Symbol.toPrimitive]() { mischief(); return 'o' }})"),
    (
        "the state's own objects",
        "try { Object.defineProperty($state.o, 'a', {enumerable: true, configurable: true, get() { mischief(); return 1 }, set() {}}) } catch {}",
    ),
    ("frozen intrinsics", "for (const o of [Object, Array, Error, Promise]) Object.freeze(o.prototype); Object.freeze(globalThis)"),
    (
        "methods replaced",
        "for (const f of ['call', 'apply', 'bind']) Function.prototype[f] = () => { mischief(); throw 1 };
         Array.prototype[Symbol.iterator] = Map.prototype.get = Map.prototype.set = WeakMap.prototype.get = () => { mischief(); throw 1 };
         Promise.resolve = Promise.reject = () => { mischief(); throw 1 }",
    ),
];

/// Of the calls of the mischief some are refused. Own fields alone are looked at of what is thrown.
const FRAME: &str = "
    let asked = 0, refused = 0, journal = 0, inside = false;
    const map = new Map([['k', [1]]]), set = new Set([1]);
    const wide = [], own = Object.getOwnPropertyDescriptor, field = (e, name) => {
        const found = own(e, name);
        return found && own(found, 'value') ? found.value : null;
    };
    function mischief() {
        if (inside || journal >= 40) return;
        inside = true;
        try {
            $emit('m', ++journal);
            $state.touched = journal;
            for (let k = 0; k < 5; k++) {
                try { void $state['other' + k]; } catch {}
                try {
                    const p = $ext.a.mischief(++asked);
                    if (typeof p === 'object') { wide[wide.length] = p; p.then(null, () => { refused++ }); }
                } catch { refused++ }
                wide[wide.length] = new Float64Array(20).fill(k);
            }
        } finally { inside = false; }
    }
    let makeValue = () => ({a: 1}), makeKey = () => 'o';
    HOSTILITY;
    const seen = [];
    for (let i = 0; i < 3; i++) {
        const V = makeValue(), K = makeKey();
        let got;
        try { got = [ENTRY]; } catch (e) {
            got = ['threw', typeof e === 'object' && e !== null ? [field(e, 'message'), field(e, 'code'), field(e, 'capability'), field(e, 'extension')] : String(e)];
        }
        Object.defineProperty(seen, i, {value: got, writable: true, enumerable: true, configurable: true});
    }
    return {seen, counts: {get made() { return asked - refused }, get journal() { return journal }}};";

#[derive(Debug, PartialEq)]
struct Outcome {
    seen: Value,
    /// Those of the entry: operation, key and value of mutations, then events, view commands, calls.
    effects: Vec<Value>,
    logs: usize,
}

fn stack_style() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| engine().start_stack_style().expect("the engine starts")).clone()
}

fn items(list: &EffectList) -> Vec<Value> {
    let Some(pieces) = list.pieces() else { return Vec::new() };
    let Ok(rmpv::Value::Array(items)) = rmpv::decode::read_value(&mut &pieces.to_vec()[..]) else { panic!("a list") };
    items.iter().map(plain).collect()
}

/// The number that `plain` made a text of.
fn count(value: &Value) -> usize {
    value.as_str().and_then(|text| text.parse().ok()).expect("a number")
}

/// As JSON, whatever it is.
fn plain(value: &rmpv::Value) -> Value {
    match value {
        rmpv::Value::Map(entries) => {
            let sorted: BTreeMap<String, Value> =
                entries.iter().map(|(k, v)| (plain(k).to_string(), plain(v))).collect();
            json!(sorted)
        }
        rmpv::Value::Array(items) => items.iter().map(plain).collect(),
        rmpv::Value::String(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        other => json!(other.to_string()),
    }
}

/// What may be read: all of it is needed to list the keys.
#[derive(Clone, Copy)]
enum Reads {
    All,
    AllButTheSecret,
}

fn new_context(reads: Reads) -> Box<Context> {
    let state = json!({"o": {"a": 1}, "ro": {"list": [{"x": 1}]}, "gone": 1, "count": 1, "secret": "s", "other0": {"z": 1}, "other1": [1], "touched": 0});
    let state = StateView::new(rmp_serde::to_vec(&state).unwrap());
    let mut grants = vec![
        "events:emit:e",
        "events:emit:m",
        "events:emit:toast",
        "view:update:v",
        "ext:a",
        "ext:none",
        "crypto:random",
    ];
    grants.extend(["state:write:n", "state:write:o", "state:write:gone", "state:write:count", "state:write:touched"]);
    match reads {
        Reads::All => grants.push("state:read:*"),
        Reads::AllButTheSecret => {
            grants.extend([
                "state:read:n",
                "state:read:o",
                "state:read:ro",
                "state:read:gone",
                "state:read:count",
                "state:read:absent",
            ]);
            grants.extend([
                "state:read:other0",
                "state:read:other1",
                "state:read:other2",
                "state:read:other3",
                "state:read:other4",
            ]);
        }
    }
    let mut context = Context::new(CapabilitySet::parse(grants).unwrap(), state, limits());
    context.extensions = Some(Registry::new([("a", &["ok", "fail", "mischief"][..])]));
    context.limits.events = 1000;
    context.args = rmp_serde::to_vec(&json!({"x": 1, "list": [1, 2]})).unwrap();
    context.scope = rmp_serde::to_vec(&json!({"y": 2})).unwrap();
    Box::new(context)
}

/// Runs to the end; every call is answered, the oldest first in promise style, the only one in stack style.
fn outcome(instance: &mut Instance, name: &str, source: &str, reads: Reads) -> Result<Outcome, String> {
    let bytecode = compile(instance, source);
    let mut end = instance.run(&bytecode, new_context(reads), None).end;
    let mut effects = Vec::new();
    let (mut logs, mut waiting, mut calls, mut events, mut writes) =
        (0, Vec::new(), Vec::new(), Vec::new(), Vec::new());
    loop {
        let context = instance.context_mut().ok_or("no context")?;
        let new = context.take_effects();
        for mutation in items(&new.state_mutations) {
            if mutation["\"key\""] == "touched" {
                writes.push(count(&mutation["\"value\""]))
            } else {
                effects.push(mutation)
            }
        }
        for mut event in items(&new.events) {
            event["\"timestamp\""] = Value::Null;
            if event["\"name\""] == "m" { events.push(count(&event["\"payload\""])) } else { effects.push(event) }
        }
        effects.extend(items(&new.view_commands));
        logs += items(&new.logs).len();
        for call in std::mem::take(&mut context.new_calls) {
            let args = plain(&rmpv::decode::read_value(&mut &call.args[..]).unwrap());
            if call.method == "mischief" {
                calls.push(count(&args[0]));
            } else {
                effects.push(json!([call.method, args]));
            }
            waiting.push(call);
        }
        match end {
            SegmentEnd::Suspended => {}
            SegmentEnd::Done(bytes) => {
                let value = plain(&rmpv::decode::read_value(&mut &bytes[..]).unwrap());
                let told = ["\"made\"", "\"journal\""].map(|what| count(&value["\"counts\""][what]));
                let in_order = |found: &[usize]| found.iter().copied().eq(1..=found.len());
                let is_rising = |found: &[usize]| found.is_sorted_by(|a, b| a < b);
                // what the last look at the state's own objects runs comes behind what is told
                let right = is_rising(&calls)
                    && in_order(&events)
                    && writes == events
                    && told[0] == calls.len()
                    && told[1] <= events.len();
                if !right || !instance.is_sound() || instance.context_mut().is_some_and(|c| c.breach.is_some()) {
                    return Err(format!(
                        "{name}: of the mischief {told:?} are told, found {calls:?}, {events:?}, {writes:?}"
                    ));
                }
                instance.reset().map_err(|e| format!("{name}: {e}"))?;
                return Ok(Outcome { seen: value["\"seen\""].clone(), effects, logs });
            }
            SegmentEnd::Failed(e) => return Err(format!("{name}: {:?}", GuestError::decode(&e))),
            other => return Err(format!("{name}: {other:?}")),
        }
        let call = waiting.remove(0);
        let failed = rmp_serde::to_vec_named(&json!({"message": "gone"})).unwrap();
        let answer = if call.method == "fail" { Err(&failed[..]) } else { Ok(&[7][..]) };
        end = instance.resume(call.number, answer, None).end;
    }
}

fn every_entry_under_every_hostility(engine: &Arc<Engine>, wait: &'static str) {
    let engine = engine.clone();
    let run = move || {
        let mut instance = engine.instantiate().unwrap();
        let mut failures = Vec::new();
        for (entry, code) in ENTRIES {
            let reads = if code.contains("keys(") { Reads::All } else { Reads::AllButTheSecret };
            let mut expected: Option<Outcome> = None;
            for (hostility, setup) in HOSTILITIES {
                let name = format!("{entry}, {hostility}, {wait:?}");
                let source = FRAME.replace("HOSTILITY", setup).replace("ENTRY", &code.replace("WAIT", wait));
                match outcome(&mut instance, &name, &source, reads) {
                    Err(failed) => {
                        failures.push(failed);
                        instance = engine.instantiate().unwrap();
                    }
                    Ok(outcome) => match &expected {
                        None => expected = Some(outcome),
                        Some(expected) if *expected == outcome => {}
                        Some(expected) => failures.push(format!("{name}: {outcome:?} instead of {expected:?}")),
                    },
                }
            }
        }
        assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    };
    std::thread::Builder::new().stack_size(thread_stack_bytes(1 << 20)).spawn(run).unwrap().join().unwrap();
}

#[test]
fn hostile_prototypes_getters_proxies_and_stack_traces_change_nothing_where_calls_are_awaited() {
    every_entry_under_every_hostility(&engine(), "await");
}

#[test]
fn hostile_prototypes_getters_proxies_and_stack_traces_change_nothing_in_stack_style() {
    every_entry_under_every_hostility(&stack_style(), "");
}
