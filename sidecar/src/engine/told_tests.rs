//! What errors are told as: their codes are of what happened, and no handler can claim another; what a refusal says is exact.

use nexus_protocol::limits::MAX_NAME_BYTES;
use nexus_protocol::{CapabilitySet, ErrorCode, WireError};
use serde_json::{Value, json};

use super::boundary_tests::on_stack_style;
use super::context::Context;
use super::guest_error::{GuestError, Source};
use super::instance_tests::{compile, context, limits, on_engine_thread, value};
use super::registry::Registry;
use super::*;

const ALL: &[&str] = &["state:read:*", "state:write:*", "events:emit:*", "view:update:*", "ext:*", "crypto:random"];

fn in_both_styles(check: fn(&mut Instance)) {
    on_engine_thread(check);
    on_stack_style(check);
}

/// How the handler fails, as its client is told.
fn fails(i: &mut Instance, source: &str, context: Box<Context>) -> WireError {
    let name = context.handler_name.clone();
    let bytecode = compile(i, source);
    let end = i.run(&bytecode, context, None).end;
    let SegmentEnd::Failed(described) = end else { panic!("{source}: {end:?}") };
    let refusals = i.context_mut().unwrap().refusals();
    let source = Source::named(source, &name);
    let wire = GuestError::decode(&described).to_wire(ErrorCode::ExecutionError, source, refusals);
    i.reset().unwrap();
    wire
}

fn gives(i: &mut Instance, source: &str, context: Box<Context>) -> Value {
    let bytecode = compile(i, source);
    let found = value(i.run(&bytecode, context, None).end);
    i.reset().unwrap();
    found
}

fn with_extension() -> Box<Context> {
    let mut context = context(json!({}), &["ext:mail", "ext:none"]);
    context.extensions = Some(Registry::new([("mail", &["send"][..])]));
    context
}

#[test]
fn codes_tell_what_happened_and_not_what_an_error_says() {
    in_both_styles(|i| {
        let refused = "let e; try { AWAIT $ext.mail.none() } catch (x) { e = x }";
        let forge = |fields: &str| format!("{refused} throw Object.assign(new Error('forged'), {fields})");
        let mut code = |source: &str| {
            let source = source
                .replace("AWAIT", if i.mode() == nexus_protocol::message::SuspendMode::Stack { "" } else { "await" });
            fails(i, &source, with_extension()).code
        };
        for (source, expected) in [
            ("AWAIT $ext.mail.none()", ErrorCode::MethodNotFound),
            ("AWAIT $ext.none.x()", ErrorCode::ExtensionNotFound),
            ("$emit('x')", ErrorCode::PermissionDenied),
            ("$state.x = 1", ErrorCode::PermissionDenied),
            ("return 1n << 70n", ErrorCode::SerializationError),
            ("const c = {}; c.c = c; return c", ErrorCode::SerializationError),
            ("try { AWAIT $ext.mail.none() } catch (e) { e.message = 'own'; throw e }", ErrorCode::MethodNotFound),
            ("try { $emit('x') } catch (e) { throw {...e, message: e.message} }", ErrorCode::ExecutionError),
            ("AWAIT $ext.mail.send(1n << 70n)", ErrorCode::SerializationError),
            ("try { AWAIT $ext.mail.send(1n << 70n) } catch (e) { throw e }", ErrorCode::SerializationError),
            (
                "try { AWAIT $ext.mail.send(1n << 70n) } catch (e) { e.code = 'MINE'; throw e }",
                ErrorCode::SerializationError,
            ),
            // what is not what it says
            ("throw Object.assign(new Error('x'), {code: 'SERIALIZATION_ERROR'})", ErrorCode::ExecutionError),
            (
                "try { AWAIT $ext.mail.send(1n << 70n) } catch (e) { throw Object.assign(new TypeError(e.message), e) }",
                ErrorCode::ExecutionError,
            ),
            ("throw {code: 'SERIALIZATION_ERROR', unencoded: true, message: 'x'}", ErrorCode::ExecutionError),
            (
                "throw {code: 'MEMORY_LIMIT', name: 'InternalError', message: 'out of memory'}",
                ErrorCode::ExecutionError,
            ),
        ] {
            assert_eq!(code(source), expected, "{source}");
        }
        for (fields, expected) in [
            // a copy of what was refused was not refused itself
            ("{code: e.code, extension: e.extension, method: e.method}", ErrorCode::ExecutionError),
            ("{code: e.code, extension: 'mail', method: 'other'}", ErrorCode::ExecutionError),
            ("{code: e.code, extension: 'mail', method: 'send'}", ErrorCode::ExecutionError),
            ("{code: e.code, extension: 'mail'}", ErrorCode::ExecutionError),
            ("{code: 'EXTENSION_NOT_FOUND', extension: 'mail', method: 'none'}", ErrorCode::ExecutionError),
        ] {
            assert_eq!(code(&forge(fields)), expected, "{fields}");
        }
    });
}

// shows P-names
#[test]
fn a_denial_of_any_name_says_what_can_be_granted_or_that_nothing_can() {
    in_both_styles(|i| {
        let long = "n".repeat(MAX_NAME_BYTES);
        let too_long = "n".repeat(MAX_NAME_BYTES + 1);
        let names = [
            ("'plain'", "plain"),
            ("'a.b'", "a.b"),
            ("'a:b'", "a:b"),
            ("'a\\0b'", "a\0b"),
            ("'*'", "*"),
            ("''", ""),
            ("'\u{1f600}'", "\u{1f600}"),
            ("LONG", &long),
        ];
        let ways = [
            ("$state[NAME]", "state:read:"),
            ("$state[NAME] = 1", "state:write:"),
            ("delete $state[NAME]", "state:write:"),
            ("NAME in $state", "state:read:"),
            ("$emit(NAME)", "events:emit:"),
            ("$view.focus(NAME)", "view:update:"),
            ("AWAIT $ext[NAME].m()", "ext:"),
            ("AWAIT $ext.mail[NAME]()", "ext:mail."),
        ];
        let awaits = if i.mode() == nexus_protocol::message::SuspendMode::Stack { "" } else { "await" };
        let thrown = |i: &mut Instance, way: &str, name: &str, grants: &[&str]| {
            let way = way
                .replace("NAME", name)
                .replace("AWAIT", awaits)
                .replace("LONG", &format!("'n'.repeat({MAX_NAME_BYTES})"));
            let source = format!(
                "try {{ {way} }} catch (e) {{ return [e.code ?? null, e.capability ?? null, e.message] }} return null"
            );
            let bytecode = compile(i, &source);
            let end = i.run(&bytecode, context(json!({}), grants), None).end;
            let found = if matches!(end, SegmentEnd::Suspended) { Value::Null } else { value(end) };
            i.reset().unwrap();
            found
        };
        for (literal, name) in names {
            for (way, prefix) in ways {
                let found = thrown(i, way, literal, &[]);
                let token = found[1].as_str().unwrap_or_else(|| panic!("{way} of {name:?}: {found}")).to_owned();
                assert_eq!(found[0], "PERMISSION_DENIED", "{way} of {name:?}");
                let message = found[2].as_str().unwrap();
                let said =
                    format!("this needs the capability '{}', which was not granted", token.replace('\0', "\u{fffd}"));
                assert!(message.starts_with(&said), "{message}");
                assert!(message.len() < 2000);
                let exact = format!("{prefix}{name}{}", if way.contains("].m") { ".m" } else { "" });
                // `*` is a name too, of which there is no token that is not the one for all
                assert_eq!(message.len() == said.len(), token == exact && name != "*", "{message}");
                CapabilitySet::parse([&token]).unwrap_or_else(|e| panic!("{way} of {name:?}: {e}"));
                assert_eq!(thrown(i, way, literal, &[&token]), Value::Null, "{token} allows {way} of {name:?}");
            }
        }
        for (literal, why) in
            [("'\\ud800'", "half of a surrogate pair"), (&*format!("'{too_long}'"), "more than the 1024 of any")]
        {
            for (way, _) in ways.into_iter().filter(|(way, _)| !way.contains("$view") || !literal.contains("ud800")) {
                let found = thrown(i, way, literal, ALL);
                assert_eq!((&found[0], &found[1]), (&Value::Null, &Value::Null), "{way}: {found}");
                let message = found[2].as_str().unwrap();
                assert!(message.contains(why) && message.ends_with("no grant can allow it"), "{way}: {message}");
            }
        }
    });
}

#[test]
fn methods_of_our_names_cannot_be_assigned_to_either() {
    in_both_styles(|i| {
        for (name, own) in [
            ("console", "log"),
            ("$log", "warn"),
            ("$emit", "toast"),
            ("$view", "focus"),
            ("$time", "now"),
            ("crypto", "getRandomValues"),
        ] {
            for first in ["", "'use strict'; "] {
                let source = format!(
                    "{first}let thrown; try {{ {name}.{own} = () => 1 }} catch (e) {{ thrown = e.message }} return [thrown, typeof {name}.{own}]"
                );
                let found = gives(i, &source, context(json!({}), ALL));
                let message =
                    format!("{name}.{own} cannot be assigned to; write a function of your own, and call that");
                assert_eq!(found, json!([message, "function"]), "{source}");
            }
        }
        let own = "const mine = Object.create(console); mine.log = 1; console.more = 2; return [typeof mine.log, console.more, (({log}) => { log = 3; return log })(console)]";
        assert_eq!(gives(i, own, context(json!({}), ALL)), json!(["function", 2, 3]));
    });
}

// shows P-dates-and-bytes
#[test]
fn dates_and_bytes_in_the_state_take_no_properties() {
    in_both_styles(|i| {
        let state = rmpv::Value::Map(vec![
            ("d".into(), rmpv::Value::Ext(-1, vec![0x3b, 0x9a, 0xca, 0x00])),
            ("b".into(), rmpv::Value::Binary(vec![1, 2, 3, 4])),
            (
                "in".into(),
                rmpv::Value::Map(vec![(
                    "list".into(),
                    rmpv::Value::Array(vec![rmpv::Value::Ext(-1, vec![0, 0, 0, 1])]),
                )]),
            ),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &state).unwrap();
        let context = || {
            Box::new(Context::new(
                CapabilitySet::parse(ALL.iter().copied()).unwrap(),
                StateView::new(bytes.clone()),
                limits(),
            ))
        };
        for write in [
            "$state.d.x = 1",
            "$state.b.x = 1",
            "$state.b.buffer.x = 1",
            "$state.in.list[0].x = 1",
            "$state.d['a' + 'b'] = 1",
            "Object.assign($state.d, {x: 1})",
            "const own = new Date(0); $state.own = {own}; own.x = 1",
            "const own = new Float64Array(2); $state.own = own; own.x = 1",
            "$state.own = {get at() { return new Date(0) }}; $state.own.at.x = 1",
        ] {
            for first in ["", "'use strict'; "] {
                let source =
                    format!("{first}try {{ {write} }} catch (e) {{ return e.message }} return 'nothing was thrown'");
                let found = gives(i, &source, context());
                assert_eq!(
                    found,
                    "a Date or bytes in $state can have no properties of its own; write the value to a key beside it",
                    "{source}"
                );
            }
        }
        let others = "const own = new Date(0), copy = new Date($state.d), bytes = $state.b.slice(); own.x = copy.x = bytes.x = 1; $state.d.setTime(1);
            $state.b[0] = 9; const sealed = Object.preventExtensions(new Date(0)); sealed.x = 1;
            return [own.x, copy.x, bytes.x, $state.d.getTime(), $state.b[0], sealed.x ?? null, $state.in.more = 1]";
        assert_eq!(gives(i, others, context()), json!([1, 1, 1, 1, 9, null, 1]));
    });
}

#[test]
fn things_happen_in_the_order_of_the_language() {
    on_engine_thread(|i| {
        let key = "const log = [], key = {toString() { log.push('key'); return 'k' }}, value = v => (log.push('value'), v), o = {};";
        for (body, expected) in [
            ("o[key] = value(1)", json!(["value", "key"])),
            ("(log.push('object'), o)[(log.push('name'), key)] = value(1)", json!(["object", "name", "value", "key"])),
            ("o[key] += value(1)", json!(["key", "value"])),
            ("o[key] ??= value(1)", json!(["key", "value"])),
            (
                "[o[key]] = {[Symbol.iterator]() { log.push('iterator'); return [value(1)].values() }}",
                json!(["iterator", "value", "key"]),
            ),
            ("({a: o[key]} = {get a() { return value(1) }})", json!(["value", "key"])),
            ("for (o[key] of [value(1)]);", json!(["value", "key"])),
            ("try { null[key] = value(1) } catch (e) { log.push(e.name) }", json!(["value", "TypeError"])),
            (
                "try { undefined[key] = value(1) } catch (e) { log.push(e.message) }",
                json!(["value", "cannot set property of undefined"]),
            ),
            ("class A { m() { super[key] = value(1) } } new A().m()", json!(["value", "key"])),
        ] {
            assert_eq!(gives(i, &format!("{key} {body}; return log"), context(json!({}), &[])), expected, "{body}");
        }
        for (source, expected) in [
            ("{ f = 1; function f() {} } return typeof f", json!("number")),
            ("let seen; { function f() {} seen = f } return f === seen", json!(true)),
            ("const was = typeof f; { function f() {} } return [was, typeof f]", json!(["undefined", "function"])),
            (
                "const peek = () => typeof f; const seen = []; { seen.push(peek()); function f() {} seen.push(peek()) } return seen",
                json!(["undefined", "function"]),
            ),
            ("{ function f() { return 1 } function f() { return 2 } } return f()", json!(2)),
            (
                "const seen = []; for (let n = 0; n < 2; n++) { seen.push(typeof f); function f() { return n } } return [seen, f()]",
                json!([["function", "function"], 1]),
            ),
            ("switch (1) { case 0: function f() {} case 1: } return typeof f", json!("undefined")),
            ("if (true) function f() { return 1 } return f()", json!(1)),
            ("'use strict'; { function f() {} } return typeof f", json!("undefined")),
            ("{ async function f() {} } return typeof f", json!("undefined")),
            ("function out() { { function f() { return f } f = 3 } return typeof f } return out()", json!("function")),
            // a WeakRef says the same until the job ends
            ("const r = new WeakRef({a: 1}); return [r.deref().a, r.deref() === r.deref()]", json!([1, true])),
            (
                "let r; (() => { r = new WeakRef({}) })(); const here = !!r.deref(); await null; return [here, !!r.deref()]",
                json!([true, false]),
            ),
            (
                "let o = {}; const r = new WeakRef(o); await null; r.deref(); o = null; const here = !!r.deref(); await null; return [here, !!r.deref()]",
                json!([true, false]),
            ),
        ] {
            assert_eq!(gives(i, source, context(json!({}), &[])), expected, "{source}");
        }
    });
}

#[test]
fn the_handler_is_called_by_its_name_in_its_own_stacks() {
    in_both_styles(|i| {
        let named = |name: &str| {
            let mut context = context(json!({}), ALL);
            context.handler_name = name.into();
            context
        };
        let source = "function f() {\n  return new Error('x').stack\n}\nreturn f()";
        for (name, file) in [
            ("orders/save", "orders/save"),
            ("%s%n", "%s%n"),
            ("", "handler.js"),
            ("two\nlines", "handler.js"),
            ("é (1:2)", "é (1:2)"),
        ] {
            let frames = format!("    at f ({file}:2:14)\n    at handler ({file}:4:8)\n");
            assert_eq!(gives(i, source, named(name)), json!(frames), "{name:?}");
            let wire = fails(i, "const a = 1\nnull.x", named(name));
            assert_eq!(wire.stack.as_deref(), Some(&*format!("at handler ({file}:2:6)")));
            assert_eq!(wire.location.map(|at| (at.line, at.column)), Some((2, 6)), "{name:?}");
        }
        let sites = "Error.prepareStackTrace = (e, sites) => sites.map(s => [s.getFileName(), s.getLineNumber()]); return new Error('x').stack";
        assert_eq!(gives(i, sites, named("orders/save")), json!([["orders/save", 1]]));
    });
}
