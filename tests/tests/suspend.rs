//! Suspending and resuming: one call, many calls, who may resume, and what frees a suspended execution.

use std::collections::HashSet;
use std::time::Duration;

use nexus_protocol::message::Status;
use nexus_protocol::{ContextValue, ErrorCode};
use nexus_tests::run::{BUILTIN, calling, listening, suspended, suspension_error};
use nexus_tests::{Options, Rng, Run, SOON, Segment, Waiting, eventually, in_time, time};
use serde_json::{Value, json};

// ---- calls ----

#[test]
fn one_call_suspends_and_its_value_comes_back() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "const r = await $ext.http.get('u', {q: 1}); return [r.status, r.body.length]");
    let call = first.call();
    assert_eq!((&*call.extension, &*call.method, &call.args), ("http", "get", &json!(["u", {"q": 1}])));
    assert_eq!((call.id.len(), first.calls.len()), (32, 1));
    let last = client.resume(&call.id, &json!({"status": 200, "body": "xyz"}));
    assert_eq!((last.value(), last.seq), (json!([200, 3]), 1));
    client.still_works();
}

#[test]
fn calls_of_promise_all_are_outstanding_at_once_and_resume_in_both_orders() {
    let (_w, _s, mut client) = listening(&Options::new());
    for reversed in [false, true] {
        let first = suspended(&mut client, "return await Promise.all([$ext.a.x(1), $ext.b.y(2), $ext.c.z(3)])");
        let mut calls = first.calls.clone();
        assert_eq!(calls.iter().map(|c| &*c.method).collect::<Vec<_>>(), ["x", "y", "z"]);
        if reversed {
            calls.reverse();
        }
        for (i, call) in calls.iter().enumerate() {
            let segment = client.resume(&call.id, &json!(call.method));
            if i < 2 {
                assert_eq!((segment.status, segment.calls.len()), (Status::Suspended, 0), "{segment:?}");
            } else {
                assert_eq!(segment.value(), json!(["x", "y", "z"]));
            }
        }
    }
    client.still_works();
}

#[test]
fn a_hundred_awaits_one_after_another() {
    let (_w, _s, mut client) = listening(&Options::new());
    let source = "let sum = 0; for (let i = 0; i < 100; i++) sum += await $ext.math.next(i); return sum";
    let mut segment = suspended(&mut client, source);
    let mut ids = Vec::new();
    for i in 0..100u32 {
        assert_eq!((segment.seq, &segment.call().args), (i, &json!([i])));
        let id = segment.call().id.clone();
        assert!(!ids.contains(&id));
        segment = client.resume(&id, &json!(i));
        ids.push(id);
    }
    assert_eq!(segment.value(), 4950);
}

#[test]
fn a_failed_extension_is_an_error_of_the_handler_that_names_the_call() {
    let (_w, _s, mut client) = listening(&Options::new().debug());
    let source = "try { await $ext.http.get('u') } catch (e) {
        return [e instanceof Error, e.message, e.name, e.code ?? null, e.extension, e.method] }";
    let first = suspended(&mut client, source);
    let caught = client.resume_failed(&first.call().id, "no route", Some("NetworkError"), Some("EHOST"));
    assert_eq!(caught.value(), json!([true, "no route", "NetworkError", "EHOST", "http", "get"]));
    let first = suspended(&mut client, "\nawait $ext.http.get('u')");
    let uncaught = client.resume_failed(&first.call().id, "down", None, None);
    let error = uncaught.error();
    assert_eq!((error.code, &*error.message), (ErrorCode::ExecutionError, "down"));
    assert_eq!(error.location.as_ref().unwrap().line, 2, "{error:?}");
    client.still_works();
}

#[test]
fn suspending_works_in_loops_callbacks_and_finally() {
    let (_w, _s, mut client) = listening(&Options::new());
    let cases = [
        ("const r = []; for (const i of [1, 2]) r.push(await $ext.a.b(i)); return r", json!([10, 20])),
        ("return await Promise.all([1, 2].map(async i => 1 + await $ext.a.b(i)))", json!([11, 21])),
        ("try { throw 1 } catch { return await $ext.a.b(1) } finally { await $ext.a.b(2) }", json!(10)),
        ("return await Promise.race([$ext.a.b(1), $ext.a.b(2)])", json!(10)),
        (
            "async function* g() { yield await $ext.a.b(1); yield await $ext.a.b(2) } const r = []; for await (const x of g()) r.push(x); return r",
            json!([10, 20]),
        ),
        ("return (await Promise.allSettled([$ext.a.b(1)]))[0].value", json!(10)),
    ];
    for (source, expected) in cases {
        let (mut segment, mut waiting) = (client.run(calling(source)), Waiting::default());
        while segment.status == Status::Suspended {
            let call = waiting.next(&segment);
            let argument = call.args[0].as_i64().unwrap();
            segment = client.resume(&call.id, &json!(argument * 10));
        }
        assert_eq!(segment.value(), expected, "{source}");
    }
}

#[test]
fn a_call_may_be_awaited_after_it_was_made() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "const r = $ext.http.get('u'); return (await r).body + '!'");
    assert_eq!(client.resume(&first.call().id, &json!({"body": "later"})).value(), "later!");
    client.still_works();
}

#[test]
fn args_and_values_keep_their_types_over_a_suspension() {
    let (_w, _s, mut client) = listening(&Options::new());
    let source = "const r = await $ext.a.b(new Uint8Array([1, 2]), null, [[]], {k: 'v'}); return [r, typeof r]";
    let first = suspended(&mut client, source);
    assert_eq!(first.call().args.as_array().map(Vec::len).unwrap_or(4), 4);
    assert_eq!(client.resume(&first.call().id, &Value::Null).value(), json!([null, "object"]));
}

// ---- effects ----

// shows P-deltas
#[test]
fn each_segment_carries_only_its_own_effects_and_its_number() {
    let (_w, _s, mut client) = listening(&Options::new());
    let source = "$state.n = 1; $emit('one'); $log('one'); const a = await $ext.a.b(); $state.m = $state.n + a; await $ext.a.b(); $emit('three')";
    let first = suspended(&mut client, source);
    assert_eq!((first.seq, &first.mutations), (0, &json!([{"op": "set", "key": "n", "value": 1}])));
    assert_eq!((first.events.as_array().unwrap().len(), first.logs.as_array().unwrap().len()), (1, 1));
    let second = client.resume(&first.call().id, &json!(5));
    assert_eq!(
        (second.seq, &second.mutations, &second.events),
        (1, &json!([{"op": "set", "key": "m", "value": 6}]), &json!([]))
    );
    let third = client.resume(&second.call().id, &Value::Null);
    assert_eq!((third.seq, &third.mutations, third.events.as_array().unwrap().len()), (2, &json!([]), 1));
}

#[test]
fn limits_count_over_all_segments() {
    let (_w, _s, mut client) = listening(&Options::new());
    let run =
        calling("$emit('a'); $emit('b'); await $ext.a.b(); $emit('c'); $emit('d')").limits(|l| l.max_events = Some(3));
    let first = client.run(run);
    let last = client.resume(&first.call().id, &Value::Null);
    assert_eq!((last.code(), last.events.as_array().unwrap().len()), (ErrorCode::ResourceLimit, 1));
}

#[test]
fn suspended_time_does_not_count_and_running_time_does() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = client.run(calling("await $ext.a.b(); return 'in time'").timeout_ms(2_000));
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(client.resume(&first.call().id, &Value::Null).value(), "in time");
    let first = client.run(calling("await $ext.a.b(); for (;;);").timeout_ms(1_000));
    assert_eq!(client.resume(&first.call().id, &Value::Null).code(), ErrorCode::Timeout);
    client.still_works();
}

// ---- who may resume ----

// shows P-suspension-ids
#[test]
fn unknown_foreign_used_and_malformed_ids_get_the_same_error() {
    let (_w, sidecar, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "return await $ext.a.b()");
    let id = first.call().id.clone();
    let mut stranger = sidecar.connect();
    let foreign = suspension_error(&stranger.resume(&id, &json!("stolen")));
    let unknown = suspension_error(&stranger.resume("00112233445566778899aabbccddeeff", &json!(1)));
    let garbage = suspension_error(&stranger.resume("not an id", &json!(1)));
    let upper = suspension_error(&stranger.resume(&id.to_uppercase(), &json!(1)));
    assert!(!stranger.cancel_suspension(&id));
    // nothing of that has touched it
    assert_eq!(client.resume(&id, &json!("mine")).value(), "mine");
    let used = suspension_error(&client.resume(&id, &json!("again")));
    for other in [unknown, garbage, upper, used] {
        assert_eq!(other, foreign);
    }
}

#[test]
fn of_racing_resumes_exactly_one_wins() {
    let (_w, _s, mut client) = listening(&Options::new());
    for round in 0..50 {
        let first = suspended(&mut client, "return await $ext.a.b()");
        let id = first.call().id.clone();
        let requests: Vec<u32> = (0..4).map(|i| client.start_resume(&id, &json!(i))).collect();
        let segments: Vec<Segment> = requests.into_iter().map(|request| client.segment(request)).collect();
        let won = segments.iter().filter(|s| s.status == Status::Success).count();
        let lost =
            segments.iter().filter(|s| s.error.as_ref().is_some_and(|e| e.code == ErrorCode::SuspensionError)).count();
        assert_eq!((won, lost), (1, 3), "round {round}: {segments:?}");
    }
}

// shows P-resumes-at-once
#[test]
fn several_suspensions_of_one_execution_may_be_resumed_at_once() {
    let (_w, _s, mut client) = listening(&Options::new());
    for _ in 0..30 {
        let source = "const all = await Promise.all([0, 1, 2, 3, 4].map(i => $ext.a.b(i))); for (let i = 0; i < 1e4; i++); return all";
        let first = suspended(&mut client, source);
        let requests: Vec<u32> =
            first.calls.iter().map(|c| client.start_resume(&c.id, &json!(c.args[0].as_i64().unwrap() * 2))).collect();
        let segments: Vec<Segment> = requests.into_iter().map(|request| client.segment(request)).collect();
        let done: Vec<Value> = segments.iter().filter(|s| s.status == Status::Success).map(Segment::value).collect();
        assert_eq!(done, [json!([0, 2, 4, 6, 8])]);
        let mut numbers: Vec<u32> = segments.iter().map(|s| s.seq).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }
}

// shows P-calls-told-once
#[test]
fn each_call_is_told_once_by_the_segment_that_made_it() {
    let (_w, _s, mut client) = listening(&Options::new());
    let source = "await Promise.all([$ext.a.b('a').then(async () => { await $ext.a.b('c') }), $ext.a.b('b')]); \
                  return await $ext.a.b('d')";
    let args = |segment: &Segment| -> Vec<Value> { segment.calls.iter().map(|call| call.args[0].clone()).collect() };
    let first = suspended(&mut client, source);
    assert_eq!((first.seq, args(&first)), (0, vec![json!("a"), json!("b")]));
    let second = client.resume(&first.calls[1].id, &Value::Null);
    assert_eq!((second.status, second.seq, args(&second)), (Status::Suspended, 1, vec![]), "the other one still waits");
    let third = client.resume(&first.calls[0].id, &Value::Null);
    assert_eq!((third.status, third.seq, args(&third)), (Status::Suspended, 2, vec![json!("c")]));
    let fourth = client.resume(&third.call().id, &Value::Null);
    assert_eq!((fourth.seq, args(&fourth)), (3, vec![json!("d")]));
    assert_eq!(client.resume(&fourth.call().id, &json!(4)).value(), json!(4));
}

// shows P-calls-told-once
#[test]
fn many_calls_that_are_made_together_are_told_once_each_whatever_order_they_are_answered_in() {
    const MANY: usize = 2_000;
    let (_w, _s, mut client) = listening(&Options::new());
    let source = format!(
        "const n = (i) => $ext.a.b(i).then((v) => i % 4 ? v : $ext.a.b(-v)); \
         return (await Promise.all(Array.from({{ length: {MANY} }}, (_, i) => n(i)))).reduce((x, y) => x + y)"
    );
    let mut rng = Rng::new(31);
    let mut segment = suspended(&mut client, &source);
    let (mut waiting, mut told) = (Vec::new(), HashSet::new());
    while segment.status == Status::Suspended {
        for call in &segment.calls {
            assert!(told.insert(call.id.clone()), "told twice: {call:?}");
            waiting.push(call.clone());
        }
        let call = waiting.swap_remove(rng.below(waiting.len()));
        segment = client.resume(&call.id, &call.args[0]);
    }
    let sum: i64 = (0..MANY as i64).map(|i| if i % 4 == 0 { -i } else { i }).sum();
    assert_eq!((segment.value(), told.len(), waiting.len()), (json!(sum), MANY + MANY / 4, 0));
    assert_eq!(segment.seq as usize, MANY + MANY / 4);
}

// shows P-used-up
#[test]
fn a_resume_that_ends_its_execution_before_the_handler_runs_again_is_a_segment_of_it() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "await $ext.a.b(); return await $ext.a.b()");
    let second = client.resume(&first.call().id, &Value::Null);
    let large = [&[0xc6][..], &(33u32 << 20).to_be_bytes(), &vec![0; 33 << 20]].concat();
    let request = client.start_resume_bytes(&second.call().id, &large);
    let ended = client.segment(request);
    assert_eq!((ended.code(), ended.seq, ended.error().retryable), (ErrorCode::MemoryLimit, 2, false));
    suspension_error(&client.resume(&second.call().id, &json!(1)));
    client.still_works();
}

// shows P-bad-answer-waits
#[test]
fn what_is_no_value_leaves_the_call_to_be_answered() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "return await $ext.a.b()");
    let bad: [(&[u8], ErrorCode); 7] = [
        (b"", ErrorCode::InvalidArgument),
        (b"\xc0\xc0", ErrorCode::InvalidArgument),
        (b"\xd4\x05\x00", ErrorCode::SerializationError),
        (b"\x81\xc0\x01", ErrorCode::SerializationError),
        (b"\x92\x01\x81\xa1k\x81\x90\x01", ErrorCode::SerializationError),
        (b"\x81\xc4\x01k\x01", ErrorCode::SerializationError),
        (b"\xd7\xff\xee\x6b\x28\x00\x00\x00\x00\x01", ErrorCode::SerializationError),
    ];
    for (bytes, code) in bad {
        let request = client.start_resume_bytes(&first.call().id, bytes);
        let refused = client.segment(request);
        assert_eq!((refused.code(), refused.seq), (code, 0), "{bytes:x?}: {refused:?}");
    }
    assert_eq!(client.resume(&first.call().id, &json!(7)).value(), json!(7));
}

// shows P-resumes-at-once
#[test]
fn resumes_that_come_after_the_end_are_refused() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "return await Promise.race([$ext.a.b(0), $ext.a.b(1)])");
    let requests: Vec<u32> = first.calls.iter().map(|c| client.start_resume(&c.id, &json!("r"))).collect();
    assert_eq!(client.segment(requests[0]).value(), "r");
    suspension_error(&client.segment(requests[1]));
    client.still_works();
}

// ---- what frees it ----

// shows P-expiry
#[test]
fn a_suspension_expires() {
    let (_w, _s, mut client) = listening(&Options::new().flag("suspension-timeout-ms", 2_000));
    let first = suspended(&mut client, "return await $ext.a.b()");
    assert_eq!(client.stats().suspended_instances, 1);
    eventually("the suspension expires", SOON, || client.stats().suspended_instances == 0);
    suspension_error(&client.resume(&first.call().id, &json!(1)));
    client.still_works();
}

#[test]
fn resuming_gives_the_next_suspension_its_own_time() {
    let (_w, _s, mut client) = listening(&Options::new().flag("suspension-timeout-ms", 4_000));
    let mut segment = suspended(&mut client, "for (let i = 0; i < 4; i++) await $ext.a.b(); return 'done'");
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1_200));
        segment = client.resume(&segment.call().id.clone(), &Value::Null);
    }
    assert_eq!(segment.value(), "done");
}

// shows P-cancel
#[test]
fn cancelling_a_suspension_ends_its_execution() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "return await Promise.all([$ext.a.b(0), $ext.a.b(1)])");
    assert!(client.cancel_suspension(&first.calls[1].id));
    assert!(!client.cancel_suspension(&first.calls[1].id));
    suspension_error(&client.resume(&first.calls[0].id, &json!(1)));
    assert_eq!(client.stats().suspended_instances, 0);
    client.still_works();
}

#[test]
fn cancelling_a_running_request_stops_it() {
    let (_w, sidecar, mut client) = listening(&Options::new().patient());
    let mut other = sidecar.connect();
    // a run that ends by itself, and what comes behind it
    let mut brief = || time(|| (0..2).for_each(|_| other.still_works()));
    for source in ["for (;;);", BUILTIN] {
        in_time("it is stopped", Duration::from_millis(100), &mut brief, || {
            let running = client.start(source);
            eventually("it runs", SOON, || client.stats().active_instances == 1);
            time(|| {
                assert!(client.cancel_request(running));
                assert_eq!(client.segment(running).code(), ErrorCode::Cancelled, "{source}");
                client.still_works();
            })
        });
    }
}

#[test]
fn cancelling_a_queued_request_takes_it_out_of_the_queue() {
    let (_w, _s, mut client) = listening(&Options::new().patient().flag("max-instances", 1));
    let running = client.start("for (;;);");
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    let queued: Vec<u32> = (0..3).map(|_| client.start("return 'ran'")).collect();
    eventually("three wait", SOON, || client.stats().queued == 3);
    assert!(client.cancel_request(queued[1]));
    assert_eq!(client.segment(queued[1]).code(), ErrorCode::Cancelled);
    assert_eq!(client.stats().queued, 2);
    assert!(client.cancel_request(running));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    for id in [queued[0], queued[2]] {
        assert_eq!(client.segment(id).value(), "ran");
    }
}

#[test]
fn cancelling_a_running_resume_stops_it() {
    let (_w, _s, mut client) = listening(&Options::new().patient());
    let first = suspended(&mut client, "await $ext.a.b(); for (;;);");
    let running = client.start_resume(&first.call().id, &Value::Null);
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    assert!(client.cancel_request(running));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    client.still_works();
}

#[test]
fn a_disconnect_frees_what_is_suspended() {
    let (_w, sidecar, mut watcher) = listening(&Options::new());
    let mut client = sidecar.connect();
    let ids: Vec<String> =
        (0..20).map(|_| suspended(&mut client, "return await $ext.a.b()").call().id.clone()).collect();
    assert_eq!(watcher.stats().suspended_instances, 20);
    drop(client);
    eventually("all are freed", SOON, || watcher.stats().suspended_instances == 0);
    suspension_error(&watcher.resume(&ids[0], &json!(1)));
    watcher.still_works();
}

// shows P-max-suspended
#[test]
fn no_more_than_max_suspended_are_held() {
    let (_w, _s, mut client) = listening(&Options::new().flag("max-suspended", 3));
    let held: Vec<Segment> = (0..3).map(|_| suspended(&mut client, "return await $ext.a.b()")).collect();
    let refused = client.run(calling("return await $ext.a.b()"));
    assert_eq!(refused.code(), ErrorCode::ResourceLimit);
    assert_eq!(refused.error().context.get("resource"), Some(&ContextValue::Text("maxSuspended".into())));
    client.still_works();
    for segment in held {
        assert_eq!(client.resume(&segment.call().id, &json!("r")).value(), "r");
    }
    assert_eq!(suspended(&mut client, "return await $ext.a.b()").calls.len(), 1);
}

#[test]
fn more_can_be_suspended_than_can_run() {
    let (_w, _s, mut client) = listening(&Options::new().flag("max-instances", 1));
    let held: Vec<Segment> = (0..50).map(|_| suspended(&mut client, "return await $ext.a.b() + 1")).collect();
    client.still_works();
    for (i, segment) in held.iter().enumerate().rev() {
        assert_eq!(client.resume(&segment.call().id, &json!(i)).value(), json!(i + 1));
    }
}

// ---- registry and capabilities ----

#[test]
fn a_registry_refuses_what_it_does_not_name() {
    let (_w, _s, mut client) = listening(&Options::new());
    let with = |source: &str| calling(source).extension("http", &["get"]).extension("empty", &[]);
    assert_eq!(client.run(with("await $ext.ftp.get('u')")).code(), ErrorCode::ExtensionNotFound);
    assert_eq!(client.run(with("await $ext.http.post('u')")).code(), ErrorCode::MethodNotFound);
    let caught = client.run(with("try { await $ext.ftp.get() } catch (e) { return e.code }"));
    assert_eq!(caught.value(), "EXTENSION_NOT_FOUND");
    assert_eq!(client.run(with("return await $ext.http.get('u')")).status, Status::Suspended);
    let told =
        client.run(with("return [$ext.exists('http'), $ext.exists('ftp'), $ext.methods('http'), $ext.list().sort()]"));
    assert_eq!(told.value(), json!([true, false, ["get"], ["empty", "http"]]));
    client.still_works();
}

#[test]
fn without_a_registry_the_client_knows() {
    let (_w, _s, mut client) = listening(&Options::new());
    assert_eq!(suspended(&mut client, "await $ext.anything.at_all()").call().method, "at_all");
}

#[test]
fn an_extension_capability_may_be_one_method() {
    let (_w, _s, mut client) = listening(&Options::new());
    let with = |source: &str| Run::source(source).grant(&["ext:http.get"]);
    assert_eq!(client.run(with("await $ext.http.get()")).status, Status::Suspended);
    assert_eq!(client.run(with("await $ext.http.post()")).code(), ErrorCode::PermissionDenied);
    assert_eq!(client.run(with("await $ext.db.get()")).code(), ErrorCode::PermissionDenied);
}

#[test]
fn a_precompiled_handler_suspends_like_any_other() {
    let (_w, _s, mut client) = listening(&Options::new());
    let handle = client.precompile("return 1 + await $ext.a.b()").unwrap();
    for i in 0..3 {
        let first = client.run(Run::handle(&handle).grant(&["ext:a"]));
        assert_eq!(client.resume(&first.call().id, &json!(i)).value(), json!(i + 1));
    }
}

// shows P-bad-answer-waits
#[test]
fn a_resume_with_a_bad_payload_is_refused_and_the_suspension_stays() {
    let (_w, _s, mut client) = listening(&Options::new());
    let first = suspended(&mut client, "return await $ext.a.b()");
    let id = first.call().id.clone();
    for bytes in [&[0xc1][..], &[0x92, 1], &[1, 1], &[]] {
        let resolution = nexus_protocol::message::Resolution::Value(Some(bytes));
        let resume = nexus_protocol::message::Resume::new(&id, resolution);
        let request = client.send(&nexus_protocol::ClientMessage::Resume(resume));
        assert_eq!(client.segment(request).code(), ErrorCode::InvalidArgument, "{bytes:02x?}");
    }
    assert_eq!(client.resume(&id, &json!("good")).value(), "good");
}

#[test]
fn large_answers_of_a_long_execution_are_freed_as_they_are_used() {
    let (_w, _s, mut client) = listening(&Options::new().flag("timeout-ms", 30_000));
    let mut segment =
        suspended(&mut client, "let n = 0; for (let i = 0; i < 300; i++) n += (await $ext.a.b()).length; return n");
    let answer = json!("x".repeat(1 << 20));
    for _ in 0..300 {
        segment = client.resume(&segment.call().id.clone(), &answer);
    }
    assert_eq!(segment.value(), 300 << 20);
}
