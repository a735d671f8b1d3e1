//! What a handler sees: its state, its errors, the names that are given to it. Against the real guest, in both suspend styles
//! where they may differ.

use std::time::{Duration, Instant};

use nexus_protocol::{CapabilitySet, ErrorCode};
use rmpv::Value as Packed;
use serde_json::{Value, json};

use super::boundary_tests::on_stack_style;
use super::context::Context;
use super::guest_error::GuestError;
use super::instance_tests::{compile, context, limits, on_engine_thread, value};
use super::registry::Registry;
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

fn run(instance: &mut Instance, source: &str, context: Box<Context>) -> SegmentEnd {
    let bytecode = compile(instance, source);
    instance.run(&bytecode, context, Some(Instant::now() + Duration::from_secs(60))).end
}

/// Of a handler that ends in its first segment; the instance is pristine again afterwards.
pub(super) fn outcome(instance: &mut Instance, source: &str, context: Box<Context>) -> Value {
    let found = value(run(instance, source, context));
    instance.reset().unwrap();
    found
}

fn in_both_styles(check: fn(&mut Instance)) {
    on_engine_thread(check);
    on_stack_style(check);
}

fn mutations(instance: &mut Instance) -> Vec<(String, Packed)> {
    let effects = instance.context_mut().unwrap().take_effects();
    let Some(pieces) = effects.state_mutations.pieces() else { return Vec::new() };
    let Packed::Array(items) = rmpv::decode::read_value(&mut &pieces.to_vec()[..]).unwrap() else { panic!("a list") };
    items.into_iter().map(|item| (item["key"].as_str().unwrap().to_owned(), item["value"].clone())).collect()
}

// ---- the state ----

/// A state whose keys stand in this order.
fn ordered(keys: &[&str], capabilities: &[&str]) -> Box<Context> {
    let entries = keys.iter().zip(0..).map(|(key, n)| (Packed::from(*key), Packed::from(n))).collect();
    packed(Packed::Map(entries), capabilities)
}

fn packed(state: Packed, capabilities: &[&str]) -> Box<Context> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &state).unwrap();
    let capabilities = CapabilitySet::parse(capabilities.iter().copied()).unwrap();
    Box::new(Context::new(capabilities, StateView::new(bytes), limits()))
}

// shows P-key-order
#[test]
fn keys_have_the_order_of_an_objects_properties() {
    in_both_styles(|i| {
        let few = ["z", "10", "b", "9", "m", "a"];
        let many: Vec<String> = (0..40).map(|n| format!("key{}", n * 7 % 40)).collect();
        let many: Vec<&str> = few.iter().copied().chain(many.iter().map(String::as_str)).collect();
        for keys in [&few[..], &many] {
            let source = "const plain = {...$args};
                for (const o of [$state, plain]) {
                    o.new = 1; o.a = 2; o['3'] = 3; delete o.m; o.m = 4; delete o.b; o['03'] = 5; o['4294967295'] = 6; delete o.gone;
                }
                const forms = [Object.keys, Object.entries, JSON.stringify, o => ({...o}), o => { const l = []; for (const k in o) l.push(k); return l }];
                return forms.map(f => [f($state), f(plain)].map(x => JSON.stringify(x))).concat([[JSON.stringify($state.keys()), JSON.stringify(Object.keys(plain))]])";
            let mut context = ordered(keys, ALL);
            let entries = keys.iter().zip(0..).map(|(key, n)| (Packed::from(*key), Packed::from(n))).collect();
            rmpv::encode::write_value(&mut context.args, &Packed::Map(entries)).unwrap();
            let found = outcome(i, source, context);
            for pair in found.as_array().unwrap() {
                assert_eq!(pair[0], pair[1], "as of a plain object");
            }
        }
    });
}

#[test]
fn a_key_that_is_called_like_a_method_hides_it() {
    in_both_styles(|i| {
        let state = || json!({"keys": ["K"], "has": true, "n": 1});
        let all = outcome(
            i,
            "return [$state.keys, $state.has, typeof $state.get, {...$state}, JSON.stringify($state), Object.entries($state), $state.get('keys')]",
            context(state(), ALL),
        );
        assert_eq!(all[0], json!(["K"]));
        assert_eq!(all[1], true);
        assert_eq!(all[2], "function");
        assert_eq!(all[3], state());
        assert_eq!(serde_json::from_str::<Value>(all[4].as_str().unwrap()).unwrap(), state());
        assert_eq!(all[5].as_array().unwrap().len(), 3);
        assert_eq!(all[6], json!(["K"]));
        let unreadable = "return [typeof $state.keys, typeof $state.has, $state.n]";
        assert_eq!(
            outcome(i, unreadable, context(state(), &["state:read:n"])),
            json!(["function", "function", 1]),
            "what may not be read hides nothing"
        );
        let written = "$state.update = 1; const was = $state.update; delete $state.update; $state.set('get', 5);
            return [was, typeof $state.update, $state.get]";
        assert_eq!(outcome(i, written, context(json!({}), ALL)), json!([1, "function", 5]));
        let gone = "delete $state.keys; return typeof $state.keys";
        assert_eq!(outcome(i, gone, context(state(), ALL)), "function");
        // of a large state it is known from its index
        let mut large = state();
        for n in 0..20_000 {
            large[format!("k{n}")] = n.into();
        }
        let bytes = rmp_serde::to_vec(&large).unwrap();
        let view = StateView::given(bytes, &crate::token::StopToken::new()).unwrap();
        let large = Box::new(Context::new(CapabilitySet::parse(ALL.iter().copied()).unwrap(), view, limits()));
        assert_eq!(outcome(i, "return [$state.keys, $state.get('n')]", large), json!([["K"], 1]));
    });
}

#[test]
fn the_state_itself_is_copied_where_it_is_written() {
    on_engine_thread(|i| {
        let source = "$state.copy = $state; $state.empty = {}; return [$state.copy, $state.copy === $state]";
        assert_eq!(outcome(i, source, context(json!({"a": 1}), ALL)), json!([{"a": 1}, false]));
        assert_eq!(outcome(i, source, context(json!({}), ALL)), json!([{}, false]));
    });
}

const DATES_AND_BYTES: &[&str] = &[
    "$state.d.setTime(5)",
    "$state.d.setFullYear(2002)",
    "$state.d.setUTCHours(5)",
    "Date.prototype.setMinutes.call($state.d, 1)",
    "$state.in.list[0].setTime(5)",
    "$state.b[0] = 9",
    "(() => { 'use strict'; $state.b[0] = 9 })()",
    "Reflect.set($state.b, 0, 9)",
    "Object.defineProperty($state.b, '0', {value: 9})",
    "$state.b.set([9])",
    "$state.b.set([9], 1)",
    "$state.b.fill(9)",
    "$state.b.reverse()",
    "$state.b.sort((a, b) => b - a)",
    "$state.b.copyWithin(0, 1)",
    "$state.b.subarray(1)[0] = 9",
    "new Uint8Array($state.b.buffer)[0] = 9",
    "new Uint16Array($state.b.buffer).fill(9)",
    "new DataView($state.b.buffer).setInt8(0, 9)",
    "crypto.getRandomValues($state.b)",
    "$state.in.bytes.fill(9)",
];

/// Writes that are no part of what a state holds, or take it away.
const NOT_DELIVERED: &[&str] = &[
    "$state.b.buffer.transfer()",
    "$state.b.buffer.transfer(2)",
    "$state.d.x = 1",
    "$state.b.x = 1",
    "$state.in.list[0].x = 1",
];

fn dates_and_bytes(capabilities: &[&str]) -> Box<Context> {
    let date = || Packed::Ext(-1, vec![0x3b, 0x9a, 0xca, 0x00]);
    let bytes = || Packed::Binary(vec![1, 2, 3, 4]);
    let inner = Packed::Map(vec![("list".into(), Packed::Array(vec![date()])), ("bytes".into(), bytes())]);
    packed(Packed::Map(vec![("d".into(), date()), ("b".into(), bytes()), ("in".into(), inner)]), capabilities)
}

#[test]
fn dates_and_bytes_that_may_only_be_read_refuse_every_write() {
    in_both_styles(|i| {
        let reads = "[$state.d.getTime(), +new Date($state.d), [...$state.b], [...$state.b.slice(1)], new Uint8Array($state.b.buffer.slice(1)).length,
            $state.d instanceof Date, $state.b instanceof Uint8Array, $state.in.list[0].getTime(), $state.b === $state.b,
            (() => { const own = $state.b.slice(); own[0] = 7; return own[0] })(), (() => { const own = new Date($state.d); own.setTime(5); return own.getTime() })()]";
        let expected =
            json!([1e12 as u64, 1e12 as u64, [1, 2, 3, 4], [2, 3, 4], 3, true, true, 1e12 as u64, true, 7, 5]);
        for write in DATES_AND_BYTES.iter().chain(NOT_DELIVERED) {
            let source = format!(
                "let denied;\ntry {{\n  {write};\n}} catch (e) {{ denied = [e.code, e.capability, e.stack.includes('handler.js:3:')] }}\nreturn [denied, {reads}]"
            );
            let bytecode = compile(i, &source);
            let found = value(i.run(&bytecode, dates_and_bytes(&["state:read:*", "crypto:random"]), None).end);
            let key = write.split(['.', '[', ')', ',']).skip_while(|part| !part.ends_with("$state")).nth(1).unwrap();
            let token = format!("state:write:{key}");
            assert_eq!(found, json!([["PERMISSION_DENIED", token, true], expected]), "{write}");
            let context = i.context_mut().unwrap();
            assert_eq!((context.denials, &context.violations[0]), (1, &token), "{write}");
            assert!(mutations(i).is_empty(), "{write}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn dates_and_bytes_that_may_be_written_are_delivered_as_they_became() {
    in_both_styles(|i| {
        for write in DATES_AND_BYTES {
            let bytecode = compile(i, write);
            let end = i.run(&bytecode, dates_and_bytes(ALL), None).end;
            assert!(matches!(end, SegmentEnd::Done(_)), "{write}: {end:?}");
            let told = mutations(i);
            assert_eq!(told.len(), 1, "{write}");
            let before = dates_and_bytes(&[]).state.get(&told[0].0).unwrap().to_vec();
            assert_ne!(told[0].1, rmpv::decode::read_value(&mut &before[..]).unwrap(), "{write}");
            i.reset().unwrap();
        }
        let gone = run(i, "$state.b.buffer.transfer(); return 1", dates_and_bytes(ALL));
        let SegmentEnd::Failed(described) = gone else { panic!("{gone:?}") };
        assert_eq!(GuestError::decode(&described).code.as_deref(), Some("SERIALIZATION_ERROR"));
    });
}

/// Where it was put it is a value of its own, which says nothing of the one that may only be read.
#[test]
fn dates_and_bytes_that_may_only_be_read_can_be_written_under_another_key() {
    in_both_styles(|i| {
        let first = |value: &Packed| match value {
            Packed::Ext(-1, bytes) | Packed::Binary(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        for (write, gives, told) in [
            ("$state.q = $state.d; $state.q.setTime(5000)", "$state.q.getTime()", vec![0, 0, 0, 5]),
            ("$state.q = $state.in.list[0]; $state.q.setTime(5000)", "$state.q.getTime()", vec![0, 0, 0, 5]),
            ("$state.q = $state.b; $state.q[0] = 9", "$state.q[0]", vec![9, 2, 3, 4]),
            ("$state.q = $state.in.bytes; $state.q.fill(9)", "$state.q[3]", vec![9, 9, 9, 9]),
        ] {
            let source = format!(
                "try {{ {write} }} catch (e) {{ return e.message }}\nreturn [{gives}, $state.d.getTime(), [...$state.b], $state.in.list[0].getTime(), [...$state.in.bytes]]"
            );
            let bytecode = compile(i, &source);
            let found = value(i.run(&bytecode, dates_and_bytes(&["state:read:*", "state:write:q"]), None).end);
            let was = 1_000_000_000_000_u64;
            let wanted = if told[3] == 5 { 5000 } else { 9 };
            assert_eq!(found, json!([wanted, was, [1, 2, 3, 4], was, [1, 2, 3, 4]]), "{write}");
            let told_now = mutations(i);
            assert!(told_now.iter().all(|(key, _)| key == "q"), "{write}: {told_now:?}");
            assert_eq!(first(&told_now.last().unwrap().1), told, "{write}");
            i.reset().unwrap();
        }
    });
}

#[test]
fn an_immutable_buffer_of_the_handler_is_refused_as_the_language_says() {
    on_engine_thread(|i| {
        let source = "$state.b.length; const own = new Uint8Array([1, 2]).buffer.transferToImmutable();
            const seen = [];
            for (const write of [() => { new Uint8Array(own).fill(1) }, () => own.transfer(), () => { 'use strict'; new Uint8Array(own)[0] = 1 }, () => crypto.getRandomValues(new Uint8Array(own))])
                try { write(); seen.push('no error') } catch (e) { seen.push(e.name, typeof e.capability) }
            return seen";
        let end = value(run(i, source, dates_and_bytes(&["state:read:*", "crypto:random"])));
        assert_eq!(end, json!(["TypeError", "undefined"].repeat(4)));
    });
}

#[test]
fn an_assignment_to_one_of_our_names_says_what_to_write() {
    in_both_styles(|i| {
        for name in ["$state", "$args", "$scope", "$emit", "$view", "$ext", "$log", "$time", "console", "crypto"] {
            for form in
                ["NAME = {a: 1}", "globalThis.NAME = 1", "[NAME] = [1]", "({a: NAME} = {a: 1})", "for (NAME of [1]);"]
            {
                for first in ["", "NAME; ", "'use strict'; "] {
                    let assign = form.replace("NAME", name);
                    let source = format!(
                        "{}let thrown; try {{ {assign} }} catch (e) {{ thrown = [e.name, e.message] }}; return [thrown, typeof {name}]",
                        first.replace("NAME", name)
                    );
                    let mut context = context(json!({}), ALL);
                    context.args = vec![0x80];
                    let found = outcome(i, &source, context);
                    assert_eq!(found[0][0], "TypeError", "{source}");
                    let message = found[0][1].as_str().unwrap();
                    assert!(message.starts_with(&format!("{name} cannot be assigned to; ")), "{message}");
                    assert_ne!(found[1], "number", "{source}");
                }
            }
        }
        let own = "return [(() => { var $state = 1; $state = 2; return $state })(), (($args) => { $args = 3; return $args })(), Object.freeze({$ext: 4}).$ext = 5]";
        assert_eq!(
            outcome(i, own, context(json!({}), ALL)),
            json!([2, 3, 5]),
            "names of the handler's own are its own"
        );
    });
}

// ---- calls ----

// shows P-refused-call-rejects
#[test]
fn a_call_that_is_refused_is_a_rejected_promise() {
    on_engine_thread(|i| {
        let source = "const cycle = {}; cycle.c = cycle;
            const place = e => typeof e.stack === 'string' && /^    at handler \\(handler\\.js:\\d+:\\d+\\)/.test(e.stack);
            const seen = [], calls = [() => $ext.denied.call(1), () => $ext.none.call(), () => $ext.a.none(), () => $ext.a.ok(cycle), () => $ext.a.ok(1n << 70n),
                () => $ext.a.ok(Promise.resolve(1)), () => $ext.a.ok({get x() { throw {code: 'MINE'} }})];
            for (const call of calls) {
                let promise;
                try { promise = call() } catch { seen.push('thrown'); continue }
                await promise.then(() => seen.push('answered'), e => seen.push([e.code, e.capability ?? null, e.extension ?? null]));
            }
            let e; await $ext.denied.call(1).catch(x => { e = x });
            return [seen, place(e), (await Promise.allSettled([$ext.a.none(), 1])).map(r => r.status)]";
        let mut context = context(json!({}), &["ext:a", "ext:none"]);
        context.extensions = Some(Registry::new([("a", &["ok"][..])]));
        let found = value(run(i, source, context));
        let sent = json!(["SERIALIZATION_ERROR", null, null]);
        let expected = json!([
            ["PERMISSION_DENIED", "ext:denied.call", null],
            ["EXTENSION_NOT_FOUND", null, "none"],
            ["METHOD_NOT_FOUND", null, "a"],
            sent,
            sent,
            sent,
            ["MINE", null, null],
        ]);
        assert_eq!(found, json!([expected, true, ["rejected", "fulfilled"]]));
        assert_eq!(i.context_mut().unwrap().new_calls, []);
    });
}

#[test]
fn a_refused_call_that_nobody_catches_is_the_handlers_error_at_its_place() {
    on_engine_thread(|i| {
        let source = "const first = 1;\nawait $ext.mail.send(\n  first)";
        let end = run(i, source, context(json!({}), &[]));
        let SegmentEnd::Failed(described) = end else { panic!("{end:?}") };
        let refusals = i.context_mut().unwrap().refusals();
        let wire = GuestError::decode(&described).to_wire(ErrorCode::ExecutionError, source, refusals);
        assert_eq!((wire.code, wire.location.unwrap().line), (ErrorCode::PermissionDenied, 2));
    });
}

#[test]
fn promises_inside_of_a_value_are_awaited() {
    on_engine_thread(|i| {
        let source = "let asked = 0;
            return {get once() { asked++; return $ext.a.first() }, deep: [[Promise.resolve({p: Promise.resolve([1, $ext.a.second()])})]],
                map: new Map([['k', Promise.resolve(2)]]), set: new Set([(async () => { await null; return 3 })()]),
                nothing: Promise.resolve(), of: Promise.resolve(() => 1), get asked() { return asked }}";
        assert!(matches!(run(i, source, context(json!({}), ALL)), SegmentEnd::Suspended));
        let calls = std::mem::take(&mut i.context_mut().unwrap().new_calls);
        // the second one is made by the first one's place being written down: all of them are delivered
        let mut waiting: Vec<_> = calls.into_iter().map(|call| (call.number, call.method)).collect();
        let mut end = SegmentEnd::Suspended;
        while let Some((number, method)) = waiting.pop() {
            assert!(matches!(end, SegmentEnd::Suspended), "{method}: {end:?}");
            end = i.resume(number, Ok(if method == "first" { &[11] } else { &[12] }), None).end;
            let new = std::mem::take(&mut i.context_mut().unwrap().new_calls);
            waiting.extend(new.into_iter().map(|call| (call.number, call.method)));
        }
        let expected = json!({"once": 11, "deep": [[{"p": [1, 12]}]], "map": {"k": 2}, "set": [3], "nothing": null, "of": null, "asked": 1});
        assert_eq!(value(end), expected);
    });
}

#[test]
fn a_promise_inside_of_a_value_that_is_rejected_is_the_handlers_error() {
    in_both_styles(|i| {
        let ends = |i: &mut Instance, source: &str| {
            let end = run(i, source, context(json!({}), ALL));
            let message = match end {
                SegmentEnd::Failed(described) => GuestError::decode(&described).message,
                SegmentEnd::Stuck => "stuck".into(),
                other => panic!("{source}: {other:?}"),
            };
            i.reset().unwrap();
            message
        };
        assert_eq!(ends(i, "return [1, {p: Promise.reject(new Error('inner'))}]"), "inner");
        assert_eq!(ends(i, "return {p: (async () => { await null; throw new Error('later') })()}"), "later");
        assert_eq!(
            ends(
                i,
                "return {never: new Promise(() => {}), p: (async () => { await null; throw new Error('first') })()}"
            ),
            "first"
        );
        assert_eq!(ends(i, "return [new Promise(() => {})]"), "stuck");
        for sent in [
            "$emit('e', [Promise.resolve(1)])",
            "$state.p = Promise.resolve(1)",
            "$view.setFilter('v', Promise.resolve(1))",
        ] {
            assert!(ends(i, sent).starts_with("a promise cannot leave the sandbox"), "{sent}");
        }
    });
}

#[test]
fn a_promise_inside_of_a_value_waits_for_an_answer_that_fails() {
    on_engine_thread(|i| {
        let end = run(i, "return {a: $ext.a.b(), b: 1}", context(json!({}), ALL));
        assert!(matches!(end, SegmentEnd::Suspended), "{end:?}");
        let failed = rmp_serde::to_vec_named(&json!({"message": "gone"})).unwrap();
        let SegmentEnd::Failed(described) = i.resume(0, Err(&failed), None).end else { panic!() };
        let error = GuestError::decode(&described);
        assert_eq!((&*error.message, error.extension.as_deref()), ("gone", Some("a")));
    });
}

#[test]
fn ext_has_a_text() {
    in_both_styles(|i| {
        let source =
            "const refused = []; for (const f of [() => +$ext, () => $ext.a * 2]) refused.push(Number.isNaN(f()));
            return [`${$ext}`, `${$ext.mail}`, $ext + '', String($ext.mail), refused]";
        let found = outcome(i, source, context(json!({}), &[]));
        assert_eq!(found, json!(["$ext", "$ext.mail", "$ext", "$ext.mail", [true, true]]));
    });
}

#[test]
fn what_a_tag_is_called_with_is_frozen() {
    on_engine_thread(|i| {
        let source = "const same = new Set(), tag = s => (same.add(s), [Object.isFrozen(s), Object.isFrozen(s.raw), s.length, s.raw.length, s.raw[0]]);
            const each = () => tag`a\\n${1}b`; each(); return [each(), same.size]";
        assert_eq!(outcome(i, source, context(json!({}), &[])), json!([[true, true, 2, 2, "a\\n"], 1]));
    });
}

#[test]
fn what_the_language_allows_is_parsed() {
    on_engine_thread(|i| {
        let cases = [
            ("class A { prototype = 1; 'constructor'() {} } return new A().prototype", json!(1)),
            (
                "class A { get\n *x() { yield 1 }\n set\n *y() { yield 2 } } return [...new A().x(), ...new A().y(), 'get' in new A(), 'set' in new A()]",
                json!([1, 2, true, true]),
            ),
            ("class A { get\n x() { return 1 } } return new A().x", json!(1)),
            (
                "const f = async => async + 1, g = async () => 2, h = async x => x; return [f(1), await g(), await h(3)]",
                json!([2, 2, 3]),
            ),
            ("return [{...'ab'}, (({...rest}) => rest)('c')]", json!([{"0": "a", "1": "b"}, {"0": "c"}])),
        ];
        for (source, expected) in cases {
            assert_eq!(outcome(i, source, context(json!({}), &[])), expected, "{source}");
        }
        for source in ["class A { static prototype = 1 }", "class A { constructor = 1 }", "const o = { get\n *x() {} }"]
        {
            let refused = i.compile(source, 8 << 20, None);
            assert!(matches!(refused, Compiled::Refused(_)), "{source}: {refused:?}");
            i.reset().unwrap();
        }
    });
}

// ---- errors ----
