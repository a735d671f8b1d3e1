//! Suspended executions that hold no instance any more: nobody notices, nothing stays behind, and the pool has what it needs.

use std::time::Duration;

use nexus_protocol::message::Status;
use nexus_protocol::{ContextValue, ErrorCode};
use nexus_tests::leaks::{of_guests, settled_counts};
use nexus_tests::run::{calling, listening};
use nexus_tests::{Client, LeakProbe, Options, Rng, SOON, Segment, eventually};
use serde_json::{Value, json};

/// Of these, more wait than may keep an instance.
const MANY: usize = 200;
const CALL: &str = "return [$args, await $ext.a.b()]";

/// Suspensions outlast a loaded machine.
fn patient() -> Options {
    Options::new().patient()
}

/// Ids of executions that return `[their number, the answer]`.
fn hold(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|i| client.run_suspended(calling(CALL).args(&json!(i))).call().id.clone()).collect()
}

fn metric(client: &mut Client, series: &str) -> f64 {
    let text = client.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

fn parked(client: &mut Client) -> usize {
    metric(client, "nexus_suspensions{state=\"parked\"}") as usize
}

fn live(client: &mut Client) -> usize {
    metric(client, "nexus_suspensions{state=\"live\"}") as usize
}

#[test]
fn an_execution_that_waits_is_parked_and_goes_on_as_if_it_had_not_been() {
    let (_w, _s, mut client) = listening(&patient());
    let source = "$state.n += 1; const a = await $ext.a.b($state.n); $state.n += a;
        const [x, y] = await Promise.all([$ext.a.x(), $ext.a.y()]); return [$state.n, a, x, y, $args.k, $scope.s]";
    let run = calling(source).state(&json!({"n": 1})).args(&json!({"k": "arg"})).scope(&json!({"s": "scope"}));
    let first = client.run_suspended(run);
    eventually("it is parked", SOON, || parked(&mut client) == 1 && live(&mut client) == 0);
    let second = client.resume(&first.call().id, &json!(10));
    assert_eq!(second.mutations, json!([{"op": "set", "key": "n", "value": 12}]));
    eventually("it is parked with both calls", SOON, || parked(&mut client) == 2);
    // the later call first, and parked once more in between
    let third = client.resume(&second.calls[1].id, &json!("y"));
    assert_eq!((third.status, third.calls.len()), (Status::Suspended, 0));
    eventually("it is parked with one call", SOON, || parked(&mut client) == 1);
    let last = client.resume(&second.calls[0].id, &json!("x"));
    assert_eq!((last.value(), last.seq), (json!([12, 10, "x", "y", "arg", "scope"]), 3));
    assert_eq!((parked(&mut client), live(&mut client)), (0, 0));
    assert_eq!(metric(&mut client, "nexus_suspensions_total{event=\"parked\"}"), 3.0);
    assert_eq!(metric(&mut client, "nexus_suspensions_total{event=\"unparked\"}"), 3.0);
}

#[test]
fn a_handler_that_is_suspended_with_its_whole_stack_is_parked_too() {
    let (_w, _s, mut client) = listening(&patient());
    let source = "const order = [3, 1, 2].sort((a, b) => { const r = $ext.a.compare(a, b); return r }); return order";
    let mut segment = client.run_suspended(calling(source));
    let mut turns = 0;
    while segment.status == Status::Suspended {
        if turns < 2 {
            eventually("it is parked", SOON, || parked(&mut client) == 1);
        }
        let call = segment.call().clone();
        let difference = call.args[0].as_i64().unwrap() - call.args[1].as_i64().unwrap();
        segment = client.resume(&call.id, &json!(difference));
        turns += 1;
    }
    assert_eq!(segment.value(), json!([1, 2, 3]));
    assert!(turns >= 2, "{turns}");
}

#[test]
fn many_are_held_with_one_instance_and_new_executions_still_run() {
    let (_w, sidecar, mut client) = listening(&patient().flag("max-instances", 1));
    let ids = hold(&mut client, 1000);
    client.still_works();
    assert_eq!(client.stats().suspended_instances, 1000);
    eventually("all are parked", SOON, || parked(&mut client) == 1000);
    let bytes = metric(&mut client, "nexus_suspended_bytes");
    assert!(bytes > 0.0 && bytes < 1000.0 * 6000.0, "{bytes}");
    eventually("the instances are given back", SOON, || {
        metric(&mut client, "nexus_pool_instances{state=\"available\"}") <= 1.0
    });
    client.still_works();
    let rss = LeakProbe::of_process(of_guests(sidecar.pid())).rss_bytes;
    assert!(rss < 150 << 20, "{rss}");
    for (i, id) in ids.iter().enumerate().rev() {
        assert_eq!(client.resume(id, &json!("r")).value(), json!([i, "r"]));
    }
    assert_eq!(metric(&mut client, "nexus_suspended_bytes"), 0.0);
    client.still_works();
}

// shows P-max-suspended
#[test]
fn bytes_of_suspended_executions_are_bounded_and_the_limit_is_named() {
    let limit = 4 << 20;
    let (_w, _s, mut client) = listening(&patient().flag("max-suspended-bytes", limit));
    // an image that does not compress
    let source = "const b = new Uint8Array(500000); let x = 1;
        for (let i = 0; i < b.length; i++) { x = (x * 1103515245 + 12345) & 0x7fffffff; b[i] = x >> 16 }
        const r = await $ext.a.b(); return [b.length, r]";
    let mut held = Vec::new();
    let refused = loop {
        let segment = client.run(calling(source));
        if segment.status != Status::Suspended {
            break segment;
        }
        held.push(segment.call().id.clone());
        // those that wait become images, until these do not fit
        std::thread::sleep(Duration::from_millis(60));
        assert!(held.len() < 200, "nothing was refused");
    };
    assert_eq!(refused.code(), ErrorCode::ResourceLimit, "{refused:?}");
    let context = &refused.error().context;
    assert_eq!(context.get("resource"), Some(&ContextValue::Text("maxSuspendedBytes".into())));
    assert_eq!(context.get("limit"), Some(&ContextValue::Number(limit as u64)));
    assert!(metric(&mut client, "nexus_suspended_bytes") <= limit as f64);
    client.still_works();
    for id in held {
        assert_eq!(client.resume(&id, &json!("r")).value(), json!([500_000, "r"]));
    }
    client.run_suspended(calling(source));
}

#[test]
fn a_large_state_counts_while_it_is_held() {
    let (_w, _s, mut client) = listening(&patient().flag("max-suspended-bytes", 1 << 20));
    let run = |bytes: usize| calling("await $ext.a.b()").state(&json!({"s": "x".repeat(bytes)}));
    let first = client.run_suspended(run(700 << 10));
    let refused = client.run(run(700 << 10));
    assert_eq!(refused.code(), ErrorCode::ResourceLimit, "{refused:?}");
    let second = client.run_suspended(run(100 << 10));
    client.resume(&first.call().id, &Value::Null).value();
    let third = client.run_suspended(run(700 << 10));
    for segment in [second, third] {
        client.resume(&segment.call().id, &Value::Null).value();
    }
    assert_eq!(metric(&mut client, "nexus_suspended_bytes"), 0.0);
}

/// Waits until most of them are parked, and says how many wait in all.
fn mostly_parked(client: &mut Client, count: usize) {
    eventually("most are parked", SOON, || parked(client) >= count - 50);
}

#[test]
fn an_end_of_its_time_frees_what_is_parked() {
    let (_w, sidecar, mut client) = listening(&Options::new().flag("suspension-timeout-ms", 3000));
    hold(&mut client, 5).iter().for_each(|id| assert!(client.cancel_suspension(id)));
    let counts = settled_counts(sidecar.pid());
    let ids = hold(&mut client, MANY);
    // how many of them were, and not how many are: on a busy machine the first are gone before the last one comes
    eventually("most were parked", SOON, || {
        metric(&mut client, "nexus_suspensions_total{event=\"parked\"}") >= (MANY - 50) as f64
    });
    eventually("all expire", SOON, || client.stats().suspended_instances == 0);
    assert_eq!(client.resume(&ids[0], &Value::Null).code(), ErrorCode::SuspensionError);
    assert_eq!(metric(&mut client, "nexus_suspended_bytes"), 0.0);
    client.still_works();
    assert_eq!(settled_counts(sidecar.pid()), counts);
}

#[test]
fn cancel_and_disconnect_free_what_is_parked() {
    let (_w, sidecar, mut watcher) = listening(&patient());
    hold(&mut watcher, 5).iter().for_each(|id| assert!(watcher.cancel_suspension(id)));
    watcher.still_works();
    let counts = settled_counts(sidecar.pid());
    // cancelled
    let mut client = sidecar.connect();
    let ids = hold(&mut client, MANY);
    mostly_parked(&mut watcher, MANY);
    for id in &ids {
        assert!(client.cancel_suspension(id));
        assert!(!client.cancel_suspension(id));
    }
    assert_eq!((watcher.stats().suspended_instances, metric(&mut watcher, "nexus_suspended_bytes")), (0, 0.0));
    // gone
    hold(&mut client, MANY);
    mostly_parked(&mut watcher, MANY);
    drop(client);
    eventually("all are freed", SOON, || watcher.stats().suspended_instances == 0);
    assert_eq!(metric(&mut watcher, "nexus_suspended_bytes"), 0.0);
    assert_eq!((parked(&mut watcher), live(&mut watcher)), (0, 0));
    watcher.still_works();
    assert_eq!(settled_counts(sidecar.pid()), counts);
}

#[test]
fn a_sidecar_that_ends_does_not_wait_for_what_is_parked() {
    let (_w, mut sidecar, mut client) = listening(&patient());
    hold(&mut client, MANY);
    mostly_parked(&mut client, MANY);
    drop(client);
    eventually("all are freed", SOON, || sidecar.connect().stats().suspended_instances == 0);
    sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
}

#[test]
fn ids_of_parked_executions_are_foreign_to_others_and_used_once() {
    let (_w, sidecar, mut client) = listening(&patient());
    let ids = hold(&mut client, MANY);
    mostly_parked(&mut client, MANY);
    let mut stranger = sidecar.connect();
    let foreign = stranger.resume(&ids[0], &json!("stolen")).error().clone();
    let unknown = stranger.resume("00112233445566778899aabbccddeeff", &json!(1)).error().clone();
    assert!(!stranger.cancel_suspension(&ids[0]));
    assert_eq!((foreign.code, &foreign), (ErrorCode::SuspensionError, &unknown));
    assert_eq!(client.resume(&ids[0], &json!("mine")).value(), json!([0, "mine"]));
    assert_eq!(*client.resume(&ids[0], &json!("again")).error(), unknown);
}

#[test]
fn memory_and_maps_stay_the_same_however_many_are_parked() {
    let (_w, sidecar, mut client) = listening(&patient().flag("max-instances", 2));
    let round = |client: &mut Client| {
        let ids = hold(client, 400);
        mostly_parked(client, 400);
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(client.resume(id, &json!(7)).value(), json!([i, 7]));
        }
        eventually("the pool is small again", SOON, || {
            metric(client, "nexus_pool_instances{state=\"available\"}") <= 2.0
        });
    };
    // the allocator takes a while to have seen every order of things
    (0..8).for_each(|_| round(&mut client));
    let (counts, before) = (settled_counts(sidecar.pid()), LeakProbe::of(sidecar.pid()));
    for _ in 0..12 {
        round(&mut client);
    }
    let after = LeakProbe::of(sidecar.pid());
    assert_eq!(settled_counts(sidecar.pid()), counts);
    assert!(after.maps <= before.maps + 16, "{before:?} {after:?}");
    assert!(after.rss_bytes < before.rss_bytes + (16 << 20), "{before:?} {after:?}");
}

/// Executions come, wait for a random time, and are resumed, cancelled or forgotten while the housekeeper parks them.
#[test]
fn resumes_cancels_and_parking_race_and_every_request_is_answered_rightly() {
    let (_w, sidecar, mut watcher) = listening(&patient().flag("max-instances", 2));
    let storms: Vec<_> = (0..4u64)
        .map(|seed| {
            let mut client = sidecar.connect();
            std::thread::spawn(move || {
                let mut rng = Rng::new(seed);
                let mut held: Vec<(usize, String)> = Vec::new();
                for i in 0..1500 {
                    held.push((i, client.run_suspended(calling(CALL).args(&json!(i))).call().id.clone()));
                    while held.len() > 100 || (rng.below(3) == 0 && !held.is_empty()) {
                        let (number, id) = held.swap_remove(rng.below(held.len()));
                        if rng.below(8) == 0 {
                            assert!(client.cancel_suspension(&id));
                            continue;
                        }
                        // two at once: one wins, whoever has the execution at that moment
                        let twice = [client.start_resume(&id, &json!("r")), client.start_resume(&id, &json!("r"))];
                        let segments = twice.map(|request| client.segment(request));
                        let won: Vec<Value> =
                            segments.iter().filter(|s| s.status == Status::Success).map(Segment::value).collect();
                        assert_eq!(won, [json!([number, "r"])]);
                        assert!(
                            segments
                                .iter()
                                .any(|s| { s.error.as_ref().is_some_and(|e| e.code == ErrorCode::SuspensionError) })
                        );
                    }
                }
            })
        })
        .collect();
    storms.into_iter().for_each(|storm| storm.join().expect("no storm fails"));
    eventually("all are freed", SOON, || watcher.stats().suspended_instances == 0);
    assert_eq!(metric(&mut watcher, "nexus_suspended_bytes"), 0.0);
    assert_eq!((parked(&mut watcher), live(&mut watcher)), (0, 0));
    assert!(metric(&mut watcher, "nexus_suspensions_total{event=\"parked\"}") > 0.0);
    watcher.still_works();
}
