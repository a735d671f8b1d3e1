//! Resident states: used by handle, changed by executions and patches, gone with their handles and their sidecar.

mod support;

use std::process::Command;

use nexus_client::{Client, Context, Error, ErrorCode, Extensions, ResidentState, StatePatch};
use serde_json::{Value, json};
use support::{client, eventually, options, watched};

fn on(state: &ResidentState) -> Context {
    Context::new().resident(state).grants(["state:read:*", "state:write:*", "ext:*"])
}

fn contents(state: &ResidentState) -> (u64, Value) {
    let snapshot = state.snapshot().wait().unwrap();
    (snapshot.version, snapshot.decode().unwrap())
}

fn reason(error: &Error) -> String {
    format!("{:?}", error.as_sidecar().and_then(|wire| wire.context.get("reason")))
}

#[test]
fn executions_leave_their_effects_in_the_state() {
    watched(|| {
        let client = client();
        let state = client.create_state(&json!({"n": 1, "old": true})).wait().unwrap();
        let outcome = client.run("$state.n += 1; delete $state.old").context(&on(&state)).wait().unwrap();
        assert_eq!(outcome.segments[0].state_version, Some(2));
        let compiled = client.precompile("return Object.keys($state)").wait().unwrap();
        let segment = client.execute(&compiled).context(&on(&state)).wait().unwrap();
        assert_eq!(segment.value::<Vec<String>>().unwrap(), ["n"]);
        assert_eq!(contents(&state), (2, json!({"n": 2})));
    });
}

#[test]
fn patches_change_keys_and_parts_can_be_read() {
    watched(|| {
        let client = client();
        let state = client.create_state(&json!({"a": 1, "b": 2})).wait().unwrap();
        let patch = StatePatch::new().set(&json!({"c": 3})).delete("a").expect_version(1);
        assert_eq!(state.patch(&patch).wait().unwrap(), 2);
        let stale = state.patch(&patch).wait().unwrap_err();
        assert!(stale.retryable() && reason(&stale).contains("stale-version"), "{stale:?}");
        let part: Value = state.snapshot_of(&["c", "nothing"]).wait().unwrap().decode().unwrap();
        assert_eq!(part, json!({"c": 3}));
    });
}

#[test]
fn who_wants_to_be_alone_loses_to_whoever_was_faster() {
    watched(|| {
        let client = client();
        let state = client.create_state(&json!({"n": 1})).wait().unwrap();
        let early = client.execute("return 1").context(&on(&state).resident_at(&state, 7)).wait().unwrap();
        assert!(reason(&early.error.unwrap().into()).contains("stale-version"));
        let other = state.clone();
        let extensions = Extensions::new().method("other", "writes", move |_| {
            other.patch(&StatePatch::new().set(&json!({"other": true}))).wait().map_err(nexus_client::CallError::from)
        });
        let source = "await $ext.other.writes(); $state.n += 1";
        let lost = client
            .run(source)
            .context(&on(&state).resident_exclusive(&state))
            .extensions(extensions)
            .wait()
            .unwrap_err();
        assert!(reason(&lost).contains("stale-version"), "{lost:?}");
        assert_eq!(contents(&state), (2, json!({"n": 1, "other": true})));
    });
}

#[test]
fn a_state_goes_with_its_last_handle() {
    watched(|| {
        let client = client();
        let states = || client.stats().wait().unwrap().resident_states;
        let state = client.create_state(&json!({})).wait().unwrap();
        let (clone, context) = (state.clone(), on(&state));
        drop(state);
        client.execute("$state.a = 1").context(&context).wait().unwrap().into_result().unwrap();
        assert_eq!(states(), 1);
        drop((clone, context));
        eventually("it is gone", || states() == 0);
        drop(client.create_state(&json!({})));
        eventually("one that nobody heard of is gone as well", || states() == 0);
        let state = client.create_state(&json!({})).wait().unwrap();
        assert!(state.dispose().wait().unwrap());
        assert!(!state.dispose().wait().unwrap());
        assert!(reason(&state.snapshot().wait().unwrap_err()).contains("unknown-state"));
    });
}

#[test]
fn a_handle_of_a_sidecar_that_has_gone_is_a_clear_error() {
    watched(|| {
        let client = client();
        let state = client.create_state(&json!({"n": 1})).wait().unwrap();
        let other = Client::spawn(options()).wait().unwrap();
        let foreign = other.execute("return 1").context(&on(&state)).wait().unwrap_err();
        assert_eq!((foreign.code(), foreign.retryable()), (ErrorCode::InvalidArgument, false));
        let pid = client.child_pid().unwrap().to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        eventually("the connection has ended", || state.snapshot().wait().is_err());
        eventually("it is said why", || matches!(state.snapshot().wait(), Err(Error::StateGone)));
        let error = other.execute("return 1").context(&on(&state)).wait().unwrap_err();
        assert!(matches!(error, Error::StateGone), "{error:?}");
        assert!(error.retryable());
    });
}
