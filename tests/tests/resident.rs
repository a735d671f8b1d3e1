//! States that stay with the sidecar: what executions see of them and do to them, whose they are, and when they go.

use nexus_protocol::message::Status;
use nexus_protocol::{ContextValue, ErrorCode, WireError};
use nexus_tests::run::listening;
use nexus_tests::{Client, Options, Run, SOON, eventually};
use serde_json::{Value, json};

fn on(id: &str, source: &str) -> Run {
    Run::source(source).resident(id).grant(&["state:read:*", "state:write:*", "events:emit:*", "ext:*"])
}

fn reason(error: &WireError) -> (&ErrorCode, &ContextValue) {
    (&error.code, error.context.get("reason").unwrap_or_else(|| panic!("{error:?}")))
}

fn text(reason: &str) -> ContextValue {
    ContextValue::Text(reason.to_owned())
}

#[track_caller]
fn contents(client: &mut Client, id: &str) -> (u64, Value) {
    client.snapshot_state(id, None).unwrap()
}

// ---- one after another ----

#[test]
fn effects_of_one_execution_are_there_for_the_next() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"n": 1, "user": {"name": "Ada"}, "old": true}));
    let first = client.run(on(&id, "$state.n += 1; $state.user.name = 'Eve'; delete $state.old; return $state.n"));
    assert_eq!((first.value(), first.state_version), (json!(2), Some(2)));
    assert_eq!(first.mutations.as_array().unwrap().len(), 3, "they are told as ever: {:?}", first.mutations);
    let second = client.run(on(&id, "return [$state.n, $state.user.name, 'old' in $state, Object.keys($state)]"));
    assert_eq!(second.value(), json!([2, "Eve", false, ["n", "user"]]));
    assert_eq!(second.state_version, Some(2), "who changes nothing makes no version");
    assert_eq!(contents(&mut client, &id), (2, json!({"n": 2, "user": {"name": "Eve"}})));
}

#[test]
fn a_value_is_read_as_it_was_written_in_the_same_execution() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"a": 1, "list": [1, 2]}));
    let source = "const before = [$state.a, $state.list.length];
        $state.a = 2; $state.list.push(3); $state.b = 'new';
        return [before, $state.a, $state.list, $state.b, delete $state.a, 'a' in $state, $state.a === undefined]";
    let value = client.run(on(&id, source)).value();
    assert_eq!(value, json!([[1, 2], 2, [1, 2, 3], "new", true, false, true]));
    assert_eq!(contents(&mut client, &id), (2, json!({"b": "new", "list": [1, 2, 3]})));
}

// shows P-state-versions
#[test]
fn keys_have_the_same_order_as_in_a_state_that_comes_with_the_request() {
    let (_w, _s, mut client) = listening(&Options::new());
    let entries = ["z", "b", "10", "m", "a", "9"].into_iter().zip(1..).map(|(key, n)| (key.into(), n.into())).collect();
    let mut state = Vec::new();
    rmpv::encode::write_value(&mut state, &rmpv::Value::Map(entries)).unwrap();
    let keys = "const own = Object.keys($state); return [own, $state.keys(), Object.keys({...$state}), JSON.stringify($state)]";
    let write =
        "$state.new = 1; $state.b = 9; delete $state.z; $state.z = 2; $state.a2 = 3; delete $state.m; $state.a = 0;";
    let (id, _) = client.try_create_state(&state).unwrap();
    let given = |source: &str| Run::source(source).state_bytes(state.clone()).grant(&["state:read:*", "state:write:*"]);
    let value = client.run(on(&id, keys)).value();
    assert_eq!(value, client.run(given(keys)).value());
    assert_eq!(value[0], json!(["9", "10", "z", "b", "m", "a"]));
    // within the execution that writes, and in the next one
    let together = format!("{write} {keys}");
    let expected = client.run(given(&together)).value();
    assert_eq!(client.run(on(&id, &together)).value(), expected);
    assert_eq!(client.run(on(&id, keys)).value(), expected);
    assert_eq!(expected[0], json!(["9", "10", "b", "a", "new", "z", "a2"]));
}

#[test]
fn patches_set_and_delete_as_one_change() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"a": 1, "b": 2}));
    assert_eq!(client.patch_state(&id, &json!({"c": 3, "a": 9}), &["b", "nothing"], None), Ok(2));
    assert_eq!(client.patch_state(&id, &json!({}), &[], None), Ok(2), "an empty patch makes no version");
    assert_eq!(contents(&mut client, &id), (2, json!({"a": 9, "c": 3})));
    let error = client.patch_state(&id, &json!({"a": 0}), &[], Some(1)).unwrap_err();
    assert_eq!(reason(&error), (&ErrorCode::InvalidArgument, &text("stale-version")));
    assert!(error.retryable);
    assert_eq!(
        (&error.context["version"], &error.context["expected"]),
        (&ContextValue::Number(2), &ContextValue::Number(1))
    );
    assert_eq!(client.patch_state(&id, &json!({"a": 0}), &[], Some(2)), Ok(3));
    assert_eq!(client.snapshot_state(&id, Some(&["a", "nothing"])), Ok((3, json!({"a": 0}))));
    assert_eq!(client.snapshot_state(&id, Some(&[])), Ok((3, json!({}))));
}

#[test]
fn capabilities_are_checked_as_ever() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"a": 1, "secret": 2}));
    let run = Run::source("return $state.secret").resident(&id).grant(&["state:read:a", "state:write:*"]);
    assert_eq!(client.run(run).code(), ErrorCode::PermissionDenied);
    let run = Run::source("$state.a = 2").resident(&id).grant(&["state:read:*"]);
    assert_eq!(client.run(run).code(), ErrorCode::PermissionDenied);
    assert_eq!(contents(&mut client, &id), (1, json!({"a": 1, "secret": 2})));
}

// shows P-state-writes
#[test]
fn mutations_before_a_failure_have_happened() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"n": 1}));
    let failed = client.run(on(&id, "$state.n = 2; throw new Error('late')"));
    assert_eq!((failed.code(), failed.state_version), (ErrorCode::ExecutionError, Some(2)));
    assert_eq!(failed.mutations, json!([{"op": "set", "key": "n", "value": 2}]));
    assert_eq!(contents(&mut client, &id), (2, json!({"n": 2})));
}

// ---- at the same time ----

// shows P-state-seen
#[test]
fn a_suspended_execution_keeps_what_it_saw_and_delivers_segment_by_segment() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"a": 1, "b": 1}));
    let source = "$state.a = 2; await $ext.x.y(); const seen = [$state.a, $state.b]; $state.c = 3; return seen";
    let first = client.run(on(&id, source));
    assert_eq!((first.status, first.state_version), (Status::Suspended, Some(2)));
    assert_eq!(contents(&mut client, &id), (2, json!({"a": 2, "b": 1})), "there before it is resumed");
    assert_eq!(client.patch_state(&id, &json!({"a": 10, "b": 10}), &[], None), Ok(3));
    let last = client.resume(&first.call().id, &Value::Null);
    assert_eq!(last.value(), json!([2, 1]), "the version that it began with, and its own writes");
    assert_eq!(last.state_version, Some(4));
    assert_eq!(contents(&mut client, &id), (4, json!({"a": 10, "b": 10, "c": 3})), "only what it wrote is changed");
}

// shows P-state-writes
#[test]
fn of_two_writers_of_a_key_the_last_one_wins() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"n": 1}));
    let add = "await $ext.x.y(); $state.n = $state.n + $args; return $state.n";
    let one = client.run(on(&id, add).args(&json!(10)));
    let two = client.run(on(&id, add).args(&json!(20)));
    assert_eq!(client.resume(&one.call().id, &Value::Null).value(), json!(11));
    assert_eq!(client.resume(&two.call().id, &Value::Null).value(), json!(21));
    assert_eq!(contents(&mut client, &id), (3, json!({"n": 21})));
}

// shows P-state-conflicts
#[test]
fn who_expects_a_version_is_refused_before_and_after() {
    let (_w, _s, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"n": 1}));
    let early = client.run(on(&id, "return 1").resident_with(&id, Some(2), false));
    assert_eq!(reason(early.error()), (&ErrorCode::InvalidArgument, &text("stale-version")));
    let add = "await $ext.x.y(); $state.n += $args; return $state.n";
    for (expected, exclusive) in [(Some(1), false), (None, true)] {
        let (version, before) = contents(&mut client, &id);
        let slow = client.run(on(&id, add).args(&json!(10)).resident_with(&id, expected.map(|_| version), exclusive));
        assert_eq!(client.patch_state(&id, &json!({"other": version}), &[], None), Ok(version + 1));
        let lost = client.resume(&slow.call().id, &Value::Null);
        assert_eq!(reason(lost.error()), (&ErrorCode::InvalidArgument, &text("stale-version")));
        assert!(lost.error().retryable);
        assert_eq!(lost.mutations, json!([]), "what was not applied is not told");
        let (now, after) = contents(&mut client, &id);
        assert_eq!((now, &after["n"]), (version + 1, &before["n"]));
    }
    // an event has left: to begin anew would make it twice
    for source in ["$emit('e'); await $ext.x.y(); $state.n = 1", "await $ext.x.y(); $emit('e'); $state.n = 1"] {
        let slow = client.run(on(&id, source).resident_with(&id, None, true));
        client.patch_state(&id, &json!({"other": source}), &[], None).unwrap();
        let lost = client.resume(&slow.call().id, &Value::Null);
        assert_eq!(reason(lost.error()).1, &text("stale-version"));
        assert!(!lost.error().retryable, "{source}");
    }
    let (version, _) = contents(&mut client, &id);
    let alone =
        client.run(on(&id, "$state.n = 5; await $ext.x.y(); $state.n = 6").resident_with(&id, Some(version), false));
    let last = client.resume(&alone.call().id, &Value::Null);
    assert_eq!((last.value(), last.state_version), (Value::Null, Some(version + 2)), "its own changes are no conflict");
}

// shows P-state-conflicts
#[test]
fn counters_of_many_exclusive_executions_lose_nothing() {
    let (_w, _s, mut client) = listening(&Options::new().patient().flag("max-instances", 4));
    let id = client.create_state(&json!({"n": 0}));
    let mut done = 0;
    let mut waiting: Vec<u32> = Vec::new();
    while done < 200 {
        while waiting.len() < 16 && done + waiting.len() < 200 {
            waiting.push(client.start(on(&id, "$state.n += 1; return $state.n").resident_with(&id, None, true)));
        }
        let segment = client.segment(waiting.remove(0));
        match segment.status {
            Status::Success => done += 1,
            _ => assert_eq!(reason(segment.error()).1, &text("stale-version")),
        }
    }
    assert_eq!(contents(&mut client, &id), (201, json!({"n": 200})));
}

// ---- whose they are, and when they go ----

// shows P-state-owner
#[test]
fn a_state_of_another_connection_looks_unknown() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    let id = client.create_state(&json!({"n": 1}));
    let mut other = sidecar.connect();
    let unknown = other.snapshot_state(&"0".repeat(32), None).unwrap_err();
    assert_eq!(reason(&unknown), (&ErrorCode::InvalidArgument, &text("unknown-state")));
    for name in [&*id, "", "no id", &id.to_uppercase()] {
        assert_eq!(other.snapshot_state(name, None).unwrap_err(), unknown);
        assert_eq!(other.patch_state(name, &json!({"n": 2}), &[], None).unwrap_err(), unknown);
        assert_eq!(other.run(on(name, "return 1")).error(), &unknown);
        assert!(!other.dispose_state(name));
    }
    assert_eq!(contents(&mut client, &id), (1, json!({"n": 1})));
    assert!(client.dispose_state(&id));
    assert!(!client.dispose_state(&id));
    assert_eq!(client.run(on(&id, "return 1")).error(), &unknown);
    client.still_works();
}

// shows P-state-limits
#[test]
fn states_are_bounded_and_the_bounds_are_told() {
    let options =
        Options::new().flag("max-states", 2).flag("max-state-bytes", 100_000).flag("max-total-state-bytes", 150_000);
    let (_w, sidecar, mut client) = listening(&options);
    let large = json!({"k": "x".repeat(70_000)});
    let resource = |error: WireError| (error.code, error.context["resource"].clone());
    let packed = nexus_tests::run::pack(&large);
    let id = client.create_state(&large);
    let over = client.try_create_state(&packed).unwrap_err();
    assert_eq!(resource(over), (ErrorCode::ResourceLimit, text("maxStateBytes")));
    let mut other = sidecar.connect();
    let second = other.create_state(&large);
    assert!(other.dispose_state(&second));
    let small = client.create_state(&json!({}));
    let over = client.try_create_state(&[0x80]).unwrap_err();
    assert_eq!(resource(over), (ErrorCode::ResourceLimit, text("maxStates")));
    // an execution that writes more than there is room for: its change set is refused as a whole
    let refused = client.run(on(&small, "$state.a = 1; $state.b = 'y'.repeat(50000)"));
    assert_eq!(resource(refused.error().clone()), (ErrorCode::ResourceLimit, text("maxStateBytes")));
    assert_eq!((refused.mutations.clone(), contents(&mut client, &small)), (json!([]), (1, json!({}))));
    assert_eq!(contents(&mut client, &id), (1, large));
    let stats = client.stats();
    assert_eq!(stats.resident_states, 2);
    assert!((70_000..80_000).contains(&stats.resident_state_bytes), "{stats:?}");
    let text = client.metrics();
    assert!(text.contains("\nnexus_resident_states 2"), "{text}");
}

#[test]
fn what_is_no_state_is_refused_and_costs_nothing() {
    let (_w, _s, mut client) = listening(&Options::new());
    let bad_utf8 = [0x81, 0xa1, b'k', 0xa1, 0xff];
    let long_key = nexus_tests::run::pack(&json!({ "k".repeat(1025): 1 }));
    for bytes in [&[0x01][..], &[0x90], &[0x81, 0x01, 0x01], &[0x81, 0xa1, b'k'], &[0x80, 0x80], &bad_utf8, &long_key] {
        assert_eq!(client.try_create_state(bytes).unwrap_err().code, ErrorCode::InvalidArgument);
    }
    let extension = [0x81, 0xa1, b'k', 0xd4, 1, 0];
    assert_eq!(client.try_create_state(&extension).unwrap_err().code, ErrorCode::SerializationError);
    let stats = client.stats();
    assert_eq!((stats.resident_states, stats.resident_state_bytes), (0, 0));
}

#[test]
fn a_snapshot_that_fits_no_frame_is_an_error_and_its_parts_can_be_read() {
    let (_w, _s, mut client) = listening(
        &Options::new()
            .flag("max-frame-bytes", 131_072)
            .flag("max-source-bytes", 1000)
            .flag("max-result-bytes", 120_000),
    );
    let id = client.create_state(&json!({}));
    for key in ["a", "b"] {
        client.patch_state(&id, &json!({key: "x".repeat(80_000)}), &[], None).unwrap();
    }
    let error = client.snapshot_state(&id, None).unwrap_err();
    assert_eq!((error.code, &error.context["resource"]), (ErrorCode::ResourceLimit, &text("maxFrameBytes")));
    assert_eq!(client.snapshot_state(&id, Some(&["b"])).unwrap().1["b"].as_str().unwrap().len(), 80_000);
}

// shows P-state-disposal
#[test]
fn everything_goes_with_the_connection_and_with_dispose() {
    let (_w, sidecar, mut watcher) = listening(&Options::new());
    let counts = |client: &mut Client| {
        let stats = client.stats();
        (stats.resident_states, stats.resident_state_bytes, stats.suspended_instances)
    };
    for round in 0..20 {
        let mut client = sidecar.connect();
        let id = client.create_state(&json!({"k": "x".repeat(100_000)}));
        let suspended = client.run(on(&id, "$state.n = 1; await $ext.x.y(); $state.n = 2; return $state.k.length"));
        assert_eq!(counts(&mut watcher).0, 1);
        if round % 2 == 0 {
            assert!(client.dispose_state(&id));
            let (states, bytes, _) = counts(&mut watcher);
            assert!(states == 0 && bytes > 100_000, "the execution still reads it: {bytes}");
            let last = client.resume(&suspended.call().id, &Value::Null);
            assert_eq!(last.value(), json!(100_000));
            eventually("its bytes are free", SOON, || counts(&mut watcher).1 == 0);
        }
        drop(client);
        eventually("all is free", SOON, || counts(&mut watcher) == (0, 0, 0));
    }
}
