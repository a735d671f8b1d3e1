//! What handlers see, do and return. Each case is followed by a good request on the same connection.

use nexus_protocol::ErrorCode;
use nexus_tests::run::{ALL, run, sidecar, value};
use nexus_tests::{Options, Run, Watchdog};
use serde_json::{Value, json};

// ---- state ----

#[test]
fn state_is_read_written_and_deleted_in_order() {
    let (_w, _s, mut client) = sidecar();
    let source = "$state.a = $state.a + 1; delete $state.gone; $state.set('get', 5); $state.update('n', n => n * 2);
        return [$state.a, 'gone' in $state, $state.has('a'), $state.get, $state.n, $state.delete('never')]";
    let state = json!({"a": 1, "gone": true, "n": 21});
    let segment = run(&mut client, Run::source(source).state(&state).grant(&ALL));
    assert_eq!(segment.value(), json!([2, false, true, 5, 42, false]));
    let expected = json!([
        {"op": "set", "key": "a", "value": 2},
        {"op": "delete", "key": "gone"},
        {"op": "set", "key": "get", "value": 5},
        {"op": "set", "key": "n", "value": 42},
    ]);
    let mutations = segment.mutations.as_array().unwrap();
    // whether a delete of a key that is not there is recorded is not promised
    let known: Vec<_> = mutations.iter().filter(|m| m["key"] != "never").cloned().collect();
    assert_eq!(json!(known), expected);
}

#[test]
fn a_write_inside_a_value_is_a_set_of_its_key() {
    let (_w, _s, mut client) = sidecar();
    let source = "$state.user.name = 'x'; $state.items.push(3); return [$state.user.name, $state.items.length]";
    let state = json!({"user": {"name": "a", "age": 7}, "items": [1, 2], "other": 1});
    let segment = run(&mut client, Run::source(source).state(&state).grant(&ALL));
    assert_eq!(segment.value(), json!(["x", 3]));
    let mut mutations = segment.mutations.as_array().unwrap().clone();
    mutations.sort_by_key(|m| m["key"].to_string());
    assert_eq!(
        json!(mutations),
        json!([
            {"op": "set", "key": "items", "value": [1, 2, 3]},
            {"op": "set", "key": "user", "value": {"name": "x", "age": 7}},
        ])
    );
}

#[test]
fn keys_lists_own_writes_and_not_deleted_keys() {
    let (_w, _s, mut client) = sidecar();
    let source = "$state.c = 1; delete $state.a; return [$state.keys().sort(), Object.keys($state).sort()]";
    let segment = run(&mut client, Run::source(source).state(&json!({"a": 1, "b": 2})).grant(&ALL));
    assert_eq!(segment.value(), json!([["b", "c"], ["b", "c"]]));
}

#[test]
fn reading_a_value_without_changing_it_is_no_mutation() {
    let (_w, _s, mut client) = sidecar();
    let segment =
        run(&mut client, Run::source("return $state.user.name").state(&json!({"user": {"name": "a"}})).grant(&ALL));
    assert_eq!((segment.value(), segment.mutations), (json!("a"), json!([])));
}

#[test]
fn a_missing_state_is_an_empty_one() {
    let (_w, _s, mut client) = sidecar();
    assert_eq!(value(&mut client, "return [$state.x === undefined, $state.keys()]"), json!([true, []]));
}

#[test]
fn a_large_state_is_read_by_key() {
    let (_w, _s, mut client) = sidecar();
    let records: Vec<Value> = (0..20_000).map(|i| json!({"id": i, "name": "a record of a large state"})).collect();
    let state = json!({"big": records, "small": 7});
    let run = Run::source("return $state.small").state(&state).grant(&["state:read:small"]);
    let segment = client.run(run);
    assert_eq!(segment.value(), 7);
    assert!(segment.memory_peak_bytes < 200_000, "{}", segment.memory_peak_bytes);
    let sum = Run::source("return $state.big.reduce((n, r) => n + r.id, 0)").state(&state).grant(&["state:read:big"]);
    assert_eq!(client.run(sum).value(), 199_990_000);
    client.still_works();
}

// ---- args, scope, effects ----

#[test]
fn args_and_scope_are_plain_values() {
    let (_w, _s, mut client) = sidecar();
    let source = "$args.list.push(4); return [$args.list, $scope.x, Object.getPrototypeOf($args) === Object.prototype]";
    let segment = run(&mut client, Run::source(source).args(&json!({"list": [1]})).scope(&json!({"x": "y"})));
    assert_eq!(segment.value(), json!([[1, 4], "y", true]));
    assert_eq!(value(&mut client, "return [$args, $scope]"), json!([null, {}]));
    let own = "const f = ($args, $scope) => { $args += 1; $scope = $args; return [$args, $scope] }; return f(1)";
    assert_eq!(value(&mut client, own), json!([2, 2]));
}

#[test]
fn events_and_view_commands_come_in_order_and_in_their_shapes() {
    let (_w, _s, mut client) = sidecar();
    let source = "$emit('a', {n: 1}); $emit.toast('hi'); $emit('b'); $view.setFilter('grid', {q: 1});
        $view.scrollTo('grid', 5); $view.focus('box'); $view.command('grid', 'expand', {row: 1});";
    let segment = run(&mut client, Run::source(source).grant(&ALL));
    assert_eq!(segment.value(), Value::Null);
    let events = segment.events.as_array().unwrap();
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!((&events[0]["name"], &events[0]["payload"]), (&json!("a"), &json!({"n": 1})));
    assert_eq!((&events[1]["payload"]["message"], &events[1]["payload"]["level"]), (&json!("hi"), &json!("info")));
    assert_eq!((&events[2]["name"], &events[2]["payload"]), (&json!("b"), &Value::Null));
    assert!(events[0]["timestamp"].as_f64().unwrap() > 1.6e12);
    assert_eq!(
        segment.view_commands,
        json!([
            {"viewId": "grid", "command": "setFilter", "params": {"value": {"q": 1}}},
            {"viewId": "grid", "command": "scrollTo", "params": {"position": 5}},
            {"viewId": "box", "command": "focus", "params": {}},
            {"viewId": "grid", "command": "expand", "params": {"row": 1}},
        ])
    );
}

#[test]
fn logs_have_levels_and_console_is_the_same() {
    let (_w, _s, mut client) = sidecar();
    let source = "$log('plain', {a: 1}); $log.debug('d'); $log.info('i'); $log.warn('w'); $log.error('e'); console.log('c'); console.error('ce')";
    let segment = run(&mut client, source);
    let levels: Vec<_> = segment.logs.as_array().unwrap().iter().map(|l| l["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["info", "debug", "info", "warn", "error", "info", "error"]);
    let first = segment.logs[0]["message"].as_str().unwrap();
    assert!(first.starts_with("plain ") && first.contains('1'), "{first}");
}

#[test]
fn logs_are_capped_and_the_handler_goes_on() {
    let (_w, _s, mut client) = sidecar();
    let segment = run(&mut client, "for (let i = 0; i < 5000; i++) $log('x'.repeat(1000)); return 'done'");
    assert_eq!(segment.value(), "done");
    let bytes: usize = segment.logs.as_array().unwrap().iter().map(|l| l["message"].as_str().unwrap().len()).sum();
    assert!(bytes <= 70_000, "{bytes}");
    let narrow = run(
        &mut client,
        Run::source("for (let i = 0; i < 100; i++) $log('0123456789')").limits(|l| l.max_log_bytes = Some(100)),
    );
    assert!(narrow.logs.as_array().unwrap().len() <= 12, "{}", narrow.logs);
}

#[test]
fn time_stands_still_within_a_segment() {
    let (_w, _s, mut client) = sidecar();
    let source = "const a = Date.now(), b = $time.now(), c = new Date().getTime();
        for (let i = 0; i < 3e5; i++); return [a === b, b === c, a === Date.now(), a > 1.6e12]";
    assert_eq!(value(&mut client, source), json!([true, true, true, true]));
}

#[test]
fn the_seed_decides_math_random() {
    let (_w, _s, mut client) = sidecar();
    let source = "return [Math.random(), Math.random(), Math.random()]";
    let mut with = |seed: Option<u64>| {
        let run = Run::source(source);
        client.run(match seed {
            Some(seed) => run.seed(seed),
            None => run,
        })
    };
    assert_eq!(with(Some(7)).value(), with(Some(7)).value());
    assert_ne!(with(Some(7)).value(), with(Some(8)).value());
    assert_ne!(with(None).value(), with(None).value());
}

#[test]
fn random_bytes_need_their_capability() {
    let (_w, _s, mut client) = sidecar();
    let source = "return Array.from(crypto.getRandomValues(new Uint8Array(32)))";
    let bytes = value(&mut client, source);
    assert!(bytes.as_array().unwrap().iter().any(|b| *b != 0));
    let denied = run(&mut client, source);
    assert_eq!(
        (denied.code(), denied.error().capability.as_deref()),
        (ErrorCode::PermissionDenied, Some("crypto:random"))
    );
}

// ---- values ----

#[test]
fn every_messagepack_type_goes_in_and_comes_out() {
    let (_w, _s, mut client) = sidecar();
    // in -> out: the shortest form of the same value
    let mut array16 = vec![0xdc, 0, 16];
    array16.extend([1; 16]);
    let mut map16 = vec![0xde, 0, 16];
    for key in 0..16u8 {
        map16.extend([0xa1, b'a' + key, key]);
    }
    let cases: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (vec![0xc0], vec![0xc0]),
        (vec![0xc2], vec![0xc2]),
        (vec![0xc3], vec![0xc3]),
        (vec![0x7f], vec![0x7f]),
        (vec![0xe0], vec![0xe0]),
        (vec![0xcc, 200], vec![0xcc, 200]),
        (vec![0xcd, 0, 1], vec![1]),
        (vec![0xce, 0, 1, 0, 0], vec![0xce, 0, 1, 0, 0]),
        (vec![0xcf, 0, 0, 0, 1, 0, 0, 0, 0], vec![0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        (
            vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (vec![0xd0, 0x80], vec![0xd0, 0x80]),
        (vec![0xd1, 0x80, 0], vec![0xd1, 0x80, 0]),
        (vec![0xd2, 0x80, 0, 0, 0], vec![0xd2, 0x80, 0, 0, 0]),
        (vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (vec![0xca, 0x3f, 0xc0, 0, 0], vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
        (vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
        (vec![0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0], vec![0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        (vec![0xa0], vec![0xa0]),
        (vec![0xd9, 3, 0xe2, 0x82, 0xac], vec![0xa3, 0xe2, 0x82, 0xac]),
        (vec![0xc4, 3, 1, 2, 3], vec![0xc4, 3, 1, 2, 3]),
        (vec![0xc4, 0], vec![0xc4, 0]),
        (vec![0x93, 1, 0x90, 0x80], vec![0x93, 1, 0x90, 0x80]),
        (array16.clone(), array16),
        (map16.clone(), map16),
        (vec![0xd6, 0xff, 0, 0, 0, 1], vec![0xd6, 0xff, 0, 0, 0, 1]),
    ];
    for (sent, expected) in cases {
        let segment = client.run(Run::source("return $args").args_bytes(sent.clone()));
        assert_eq!(segment.raw_value(), expected, "{sent:02x?}");
        let nested = client
            .run(Run::source("return [$state.k]").state_bytes([&[0x81, 0xa1, b'k'], &*sent].concat()).grant(&ALL));
        assert_eq!(nested.raw_value(), [&[0x91], &*expected].concat(), "{sent:02x?} in the state");
    }
    client.still_works();
}

// shows P-payload-mapping
#[test]
fn javascript_types_come_out_as_the_specification_says() {
    let (_w, _s, mut client) = sidecar();
    let cases: &[(&str, &[u8])] = &[
        ("undefined", &[0xc0]),
        ("[undefined, null]", &[0x92, 0xc0, 0xc0]),
        ("10n", &[0xcf, 0, 0, 0, 0, 0, 0, 0, 10]),
        ("-10n", &[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf6]),
        ("(1n << 63n)", &[0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("new Uint8Array([1, 2])", &[0xc4, 2, 1, 2]),
        ("new Uint8Array([1, 2]).buffer", &[0xc4, 2, 1, 2]),
        ("new Set([1, 2])", &[0x92, 1, 2]),
        ("new Map([['a', 1]])", &[0x81, 0xa1, b'a', 1]),
        ("({a: () => 1, b: Symbol(), c: 2})", &[0x81, 0xa1, b'c', 2]),
        ("[() => 1, Symbol()]", &[0x92, 0xc0, 0xc0]),
        ("'\\ud800'", &[0xa3, 0xef, 0xbf, 0xbd]),
        ("({toJSON() { return 1 }, x: 3})", &[0x81, 0xa1, b'x', 3]),
        ("new Date(1000)", &[0xd6, 0xff, 0, 0, 0, 1]),
        ("-0", &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("NaN", &[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
        ("Infinity", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
        ("Object.assign(Object.create({p: 1}), {o: 2})", &[0x81, 0xa1, b'o', 2]),
        ("JSON.parse('{\"__proto__\": 1}')", &[0x81, 0xa9, b'_', b'_', b'p', b'r', b'o', b't', b'o', b'_', b'_', 1]),
    ];
    for (expression, expected) in cases {
        let segment = client.run(format!("return {expression}").as_str());
        // an ArrayBuffer and -0 and others: exactly these bytes
        assert_eq!(&segment.raw_value(), expected, "{expression}");
    }
    let error = value(&mut client, "return new TypeError('no')");
    assert_eq!((&error["name"], &error["message"]), (&json!("TypeError"), &json!("no")));
    client.still_works();
}

#[test]
fn what_messagepack_cannot_carry_is_a_serialization_error() {
    let (_w, _s, mut client) = sidecar();
    for source in [
        "const a = []; a.push(a); return a",
        "let a = []; for (let i = 0; i < 64; i++) a = [a]; return a",
        "return 1n << 64n",
        "$state.x = -(1n << 63n) - 1n",
    ] {
        let segment = run(&mut client, Run::source(source).grant(&ALL));
        assert_eq!(segment.code(), ErrorCode::SerializationError, "{source}");
    }
    assert!(value(&mut client, "let a = []; for (let i = 0; i < 63; i++) a = [a]; return a").is_array());
}

#[test]
fn a_payload_with_a_foreign_extension_type_is_a_serialization_error() {
    let (_w, _s, mut client) = sidecar();
    let segment = client.run(Run::source("return $args").args_bytes(vec![0xd4, 5, 0]));
    assert!(matches!(segment.code(), ErrorCode::SerializationError), "{:?}", segment.error());
    client.still_works();
}

// ---- errors ----

#[test]
fn an_error_has_name_message_line_column_and_snippet_in_debug_mode() {
    let (_w, _s, mut client) = sidecar();
    let source = "const a = 1;\nfunction f(x) {\n  return x.y.z;\n}\nf({});";
    let segment = run(&mut client, source);
    let error = segment.error();
    assert_eq!((error.code, error.name.as_deref()), (ErrorCode::ExecutionError, Some("TypeError")));
    assert_eq!(error.location.as_ref().unwrap().line, 3, "{error:?}");
    assert!((10..=14).contains(&error.location.as_ref().unwrap().column), "{error:?}");
    let snippet = error.snippet.as_ref().unwrap();
    assert_eq!(
        snippet.code.lines().nth(snippet.highlight_line as usize - 1).unwrap().trim(),
        "return x.y.z;",
        "{snippet:?}"
    );
    let stack = error.stack.as_deref().unwrap();
    assert!(stack.contains('f'), "{stack}");
}

#[test]
fn without_debug_an_error_has_its_place_but_no_stack_and_no_snippet() {
    let _w = Watchdog::seconds(60);
    let (_s, mut client) = Options::new().child();
    let segment = run(&mut client, "\n\nthrow new RangeError('far')");
    let error = segment.error();
    assert_eq!((error.name.as_deref(), &*error.message), (Some("RangeError"), "far"));
    assert_eq!(error.location.as_ref().unwrap().line, 3);
    assert_eq!((&error.stack, &error.snippet), (&None, &None));
}

#[test]
fn places_survive_an_await() {
    let (_w, _s, mut client) = sidecar();
    let segment = run(&mut client, "await null;\nawait Promise.resolve();\nthrow new Error('late')");
    assert_eq!(segment.error().location.as_ref().unwrap().line, 3, "{:?}", segment.error());
}

#[test]
fn anything_can_be_thrown() {
    let (_w, _s, mut client) = sidecar();
    let cases = [
        ("throw 'text'", "text"),
        ("throw 42", "42"),
        ("throw null", "null"),
        ("throw {message: 'an object'}", "an object"),
        ("throw undefined", "undefined"),
        ("await Promise.reject(new Error('rejected'))", "rejected"),
        ("throw Object.assign(new Error('own'), {name: 'Own'})", "own"),
    ];
    for (source, message) in cases {
        let segment = run(&mut client, source);
        assert_eq!((segment.code(), &*segment.error().message), (ErrorCode::ExecutionError, message), "{source}");
    }
    for source in ["throw Symbol('s')", "throw {get message() { throw 1 }}", "throw new Proxy({}, {get() { throw 1 }})"]
    {
        assert_eq!(run(&mut client, source).code(), ErrorCode::ExecutionError, "{source}");
    }
}

// shows P-effects-before-error
#[test]
fn effects_before_an_error_are_delivered() {
    let (_w, _s, mut client) = sidecar();
    let segment =
        run(&mut client, Run::source("$state.a = 1; $emit('e', 2); $log('l'); throw new Error('x')").grant(&ALL));
    assert_eq!(segment.code(), ErrorCode::ExecutionError);
    assert_eq!(segment.mutations, json!([{"op": "set", "key": "a", "value": 1}]));
    assert_eq!((segment.events.as_array().unwrap().len(), segment.logs.as_array().unwrap().len()), (1, 1));
}

// shows P-always-a-result
#[test]
fn a_handler_that_does_not_parse_is_a_compilation_error_with_its_place() {
    let (_w, _s, mut client) = sidecar();
    for (source, line) in [("const a = ;", 1), ("let x = 1;\nlet x = 2;", 2), ("return (1", 1), ("\n\nif (", 3)] {
        let segment = run(&mut client, source);
        assert_eq!(segment.code(), ErrorCode::CompilationError, "{source}");
        let location = segment.error().location.as_ref().unwrap_or_else(|| panic!("{source}: {:?}", segment.error()));
        assert_eq!(location.line, line, "{source}: {:?}", segment.error());
        assert_eq!(client.check(source).unwrap_err().code, ErrorCode::CompilationError);
        assert_eq!(client.precompile(source).unwrap_err().code, ErrorCode::CompilationError);
    }
}

#[test]
fn a_handler_cannot_break_out_of_its_function() {
    let (_w, _s, mut client) = sidecar();
    for source in ["}); globalThis.x = 1; (async () => {", "} } {", "*/ 1", "return 1 }, function() {"] {
        assert_eq!(run(&mut client, source).code(), ErrorCode::CompilationError, "{source}");
    }
    assert_eq!(value(&mut client, "return 1 // a comment at the end"), 1);
}

#[test]
fn a_promise_that_nothing_settles_is_an_error() {
    let (_w, _s, mut client) = sidecar();
    let segment = run(&mut client, "await new Promise(() => {})");
    assert_eq!(segment.code(), ErrorCode::ExecutionError);
}

#[test]
fn a_value_is_awaited_before_it_is_returned() {
    let (_w, _s, mut client) = sidecar();
    assert_eq!(value(&mut client, "return (async () => { await null; return 5 })()"), 5);
    assert_eq!(value(&mut client, "return {then(resolve) { resolve(6) }}"), 6);
}

// shows P-awaited-result
#[test]
fn a_promise_inside_of_a_result_is_awaited_and_anywhere_else_refused() {
    let (_w, _s, mut client) = sidecar();
    let later = "const later = async x => { await null; return x };";
    let deep = format!("{later} return {{a: [later(1), {{b: later([later(2)])}}], m: new Map([['k', later(3)]])}}");
    assert_eq!(value(&mut client, &deep), json!({"a": [1, {"b": [2]}], "m": {"k": 3}}));
    let failed = client.run(Run::source(format!("{later} return [later(1), Promise.reject(new RangeError('no'))]")));
    assert_eq!((failed.code(), failed.error().name.as_deref()), (ErrorCode::ExecutionError, Some("RangeError")));
    for elsewhere in ["$state.a = [later(1)]", "$emit('e', {x: later(1)})", "await $ext.a.b([later(1)])"] {
        let segment = client.run(Run::source(format!("{later} {elsewhere}")).grant(&ALL));
        assert_eq!(segment.code(), ErrorCode::SerializationError, "{elsewhere}");
    }
}

/// The same failure with and without a trace.
// shows P-retryable
#[test]
fn what_has_left_a_trace_is_not_to_be_tried_again() {
    let (_w, _s, mut client) = sidecar();
    let unknown = "00".repeat(16);
    let refused = |client: &mut nexus_tests::Client, run: Run| {
        let segment = client.run(run);
        (segment.code(), segment.error().retryable)
    };
    let on_none = || Run::source("return 1").resident(&unknown);
    assert_eq!(refused(&mut client, on_none()), (ErrorCode::InvalidArgument, true), "nothing has happened");
    assert_eq!(refused(&mut client, Run::source("throw 1")), (ErrorCode::ExecutionError, false));
    for trace in ["", "$state.a = 1;", "$emit('e');", "$view.focus('v');"] {
        let id = client.create_state(&json!({}));
        let mine =
            Run::source(format!("{trace} await $ext.x.y(); $state.n = 1")).grant(&ALL).resident_with(&id, None, true);
        let slow = client.run(mine);
        client.patch_state(&id, &json!({"other": 1}), &[], None).expect("a patch of a state");
        let lost = client.resume(&slow.call().id, &Value::Null);
        assert_eq!((lost.code(), lost.error().retryable), (ErrorCode::InvalidArgument, trace.is_empty()), "{trace}");
    }
}

// ---- bad requests ----

#[test]
fn a_state_that_is_no_map_with_string_keys_is_refused() {
    let (_w, _s, mut client) = sidecar();
    for state in [
        vec![0x01],
        vec![0xc0],
        vec![0x91, 1],
        vec![0x81, 1, 1],
        vec![0x81, 0xa1],
        vec![],
        vec![0x80, 0x80],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
    ] {
        let segment = run(&mut client, Run::source("return 1").state_bytes(state.clone()));
        assert_eq!(segment.code(), ErrorCode::InvalidArgument, "{state:02x?}");
    }
}

// shows P-bad-value-goes-on
#[test]
fn arguments_that_are_no_payload_are_refused() {
    let (_w, _s, mut client) = sidecar();
    let deep = [vec![0x91; 65], vec![0x90]].concat();
    for args in [vec![], vec![0xc1], vec![0x92, 1], vec![1, 1], vec![0xdd, 0xff, 0xff, 0xff, 0xff], deep] {
        let segment = run(&mut client, Run::source("return $args").args_bytes(args.clone()));
        assert!(
            matches!(segment.code(), ErrorCode::InvalidArgument | ErrorCode::SerializationError),
            "{args:02x?}: {segment:?}"
        );
    }
}

// shows P-always-a-result
#[test]
fn a_forged_handle_is_an_invalid_handler() {
    let (_w, _s, mut client) = sidecar();
    let handle = client.precompile("return 7").unwrap();
    assert_eq!(run(&mut client, Run::handle(&handle)).value(), 7);
    for at in [0, handle.len() / 2, handle.len() - 1] {
        let mut forged = handle.clone();
        forged[at] ^= 1;
        assert_eq!(run(&mut client, Run::handle(&forged)).code(), ErrorCode::InvalidHandler, "byte {at}");
    }
    for forged in [&[][..], b"QJSC", &handle[1..], &[0; 200]] {
        assert_eq!(run(&mut client, Run::handle(forged)).code(), ErrorCode::InvalidHandler);
    }
    let (_other, mut elsewhere) = Options::new().child();
    let foreign = elsewhere.run(Run::handle(&handle));
    assert_eq!(foreign.code(), ErrorCode::InvalidHandler);
    assert!(foreign.error().retryable, "{:?}", foreign.error());
}

// ---- the cache and figures ----

#[test]
fn a_handler_is_compiled_once() {
    let (_w, _s, mut client) = sidecar();
    let first = client.run("return 'cached'");
    assert!(!first.cache_hit && first.compilation_time_us.is_some());
    let second = client.run("return 'cached'");
    assert!(second.cache_hit && second.compilation_time_us.is_none());
}

#[test]
fn host_calls_are_counted_by_name() {
    let (_w, _s, mut client) = sidecar();
    let segment = run(&mut client, Run::source("$state.a; $state.b = 1; $emit('e', 1); $emit('e', 2)").grant(&ALL));
    let total: u64 = segment.host_calls.iter().map(|(_, n)| n).sum();
    assert!(total >= 4, "{:?}", segment.host_calls);
    assert!(segment.host_calls.iter().any(|(name, n)| name.contains("emit") && *n == 2), "{:?}", segment.host_calls);
}

#[test]
fn typescript_is_accepted_and_places_stay() {
    let (_w, _s, mut client) = sidecar();
    assert_eq!(
        value(&mut client, "interface A { n: number }\nconst a: A = {n: 4};\nreturn (a as A).n satisfies number"),
        4
    );
    let segment = run(
        &mut client,
        "type T = {\n  a: string;\n};\nconst f = (x: T): void => { throw new Error(x.a) };\nf({a: 'here'})",
    );
    assert_eq!(segment.error().location.as_ref().unwrap().line, 4, "{:?}", segment.error());
}
