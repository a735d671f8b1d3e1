//! Looking after a sidecar: what is listed, who may ask, and the end of an execution.

use std::process::Output;

use nexus_protocol::ErrorCode;
use nexus_tests::process::command;
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Options, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::{Value, json};

fn in_state<'a>(all: &'a Value, state: &str) -> Vec<&'a Value> {
    all["executions"].as_array().unwrap().iter().filter(|e| e["state"] == state).collect()
}

/// One suspended, one running and one queued execution of one client; the requests of the last two.
fn busy(sidecar: &Sidecar) -> (Client, String, u32, u32) {
    let mut client = sidecar.connect();
    let suspended = client.run(Run::source("await $ext.a.b('secret'); return 1").grant(&["ext:a"]));
    let running = client.start("const secret = 1; for (;;);");
    let queued = client.start("return 'secret'");
    client.ping();
    eventually("one runs", SOON, || client.stats().active_instances == 1);
    (client, suspended.call().id.clone(), running, queued)
}

fn options() -> Options {
    Options::new().patient().flag("max-instances", 1)
}

// shows P-executions
#[test]
fn executions_are_listed_with_their_state_and_without_their_values() {
    let _w = Watchdog::seconds(60);
    let sidecar = options().listen();
    let (_client, ..) = busy(&sidecar);
    let mut operator = sidecar.connect();
    // an instance is told to be active a moment before its memory is known
    eventually("the memory of the one that runs is known", SOON, || {
        in_state(&operator.executions(), "running").first().is_some_and(|one| one["memoryBytes"].is_u64())
    });
    let all = operator.executions();
    assert_eq!(all["total"], 3, "{all}");
    assert!(!all.to_string().contains("secret"), "{all}");
    let states: Vec<&str> =
        all["executions"].as_array().unwrap().iter().map(|e| e["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["running", "suspended", "queued"]);
    let running = in_state(&all, "running")[0];
    assert_eq!((&running["client"], &running["pid"]), (&json!("nexus-tests"), &json!(std::process::id())));
    assert!(running["memoryBytes"].as_u64().unwrap() >= 4096, "{running}");
    let before = running["cpuUs"].as_u64().unwrap();
    eventually("its time grows", SOON, || {
        in_state(&operator.executions(), "running")[0]["cpuUs"].as_u64().unwrap() >= before + 20_000
    });
    let suspended = in_state(&all, "suspended")[0];
    assert_eq!(suspended["pendingCalls"], 1);
    assert!(suspended["cpuUs"].as_u64().unwrap() > 0);
}

// shows P-kill
#[test]
fn an_execution_can_be_killed_in_any_state() {
    let _w = Watchdog::seconds(60);
    let sidecar = options().listen();
    let (mut client, suspension, running, queued) = busy(&sidecar);
    let mut operator = sidecar.connect();
    let all = operator.executions();
    let id = |state: &str| in_state(&all, state)[0]["id"].as_u64().unwrap();
    for state in ["suspended", "queued", "running"] {
        assert!(operator.kill(id(state)), "{state}");
    }
    assert_eq!(client.segment(queued).code(), ErrorCode::Cancelled);
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    assert_eq!(client.resume(&suspension, &json!(1)).code(), ErrorCode::SuspensionError);
    eventually("all are gone", SOON, || operator.executions()["total"] == 0);
    assert!(!operator.kill(id("running")), "it is gone");
    client.still_works();
}

#[test]
fn an_execution_keeps_its_id_while_it_suspends_and_goes_on() {
    let _w = Watchdog::seconds(60);
    let sidecar = options().listen();
    let mut client = sidecar.connect();
    let first = client.run(Run::source("await $ext.a.b(); for (;;);").grant(&["ext:a"]));
    let mut operator = sidecar.connect();
    let id = in_state(&operator.executions(), "suspended")[0]["id"].as_u64().unwrap();
    let resume = client.start_resume(&first.call().id, &json!(1));
    eventually("it runs", SOON, || !in_state(&operator.executions(), "running").is_empty());
    assert_eq!(in_state(&operator.executions(), "running")[0]["id"], id);
    assert!(operator.kill(id));
    assert_eq!(client.segment(resume).code(), ErrorCode::Cancelled);
}

#[test]
fn a_parent_may_look_after_its_child() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut client) = options().child();
    let running = client.start("for (;;);");
    eventually("it is listed", SOON, || client.executions()["total"] == 1);
    let all = client.executions();
    assert!(client.kill(all["executions"][0]["id"].as_u64().unwrap()));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
}

fn top(args: &[&str]) -> Output {
    let dir = TempDir::new();
    command(dir.path()).arg("top").args(args).output().unwrap()
}

#[test]
fn top_shows_them_and_ends_one() {
    let _w = Watchdog::seconds(60);
    let sidecar = options().listen();
    let (mut client, _, running, _) = busy(&sidecar);
    let path = sidecar.path().to_str().unwrap();
    let shown = top(&["--connect", path, "--once"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.starts_with("3 executions: 1 running, 1 suspended, 1 queued\n"), "{text}");
    assert!(!text.contains('\u{1b}'), "no terminal is driven where there is none: {text:?}");
    let json: Value = serde_json::from_slice(&top(&["--connect", path, "--once", "--json"]).stdout).unwrap();
    let id = in_state(&json, "running")[0]["id"].to_string();
    let killed = top(&["--connect", path, "--kill", &id]);
    assert_eq!(killed.status.code(), Some(0));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    assert_eq!(top(&["--connect", path, "--kill", "999999"]).status.code(), Some(1));
    assert_eq!(top(&["--connect", "/nonexistent", "--once"]).status.code(), Some(1));
}

#[test]
fn run_refuses_a_token_that_it_does_not_know_as_wrong_usage() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    std::fs::write(dir.join("h.js"), "return 1").unwrap();
    let run = command(dir.path()).arg("run").arg(dir.join("h.js")).args(["--grant", "state:raed:n"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("--grant state:raed:n"), "{run:?}");
}
