//! Every limit at its minimum: each kind of request still succeeds once, and what is over a limit is refused by the name of that
//! limit. First all of them together, as `Profile::Minimum` has them, then each at the lowest value that can be configured.
//!
//! The time limits are as short as the others, so on a busy machine a request may be told that its time is over before it was
//! begun: that is tried again, and nothing else is.

use std::time::Instant;

use nexus_protocol::message::{Cancel, Check, HelloLimits, Kill, OpenArena, Precompile, Status, SuspendMode};
use nexus_protocol::{ClientMessage, ContextValue, ErrorCode, RequestId, WireError};
use nexus_tests::run::calling;
use nexus_tests::{Answer, Client, Options, Profile, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

fn start() -> (Watchdog, Sidecar, Client) {
    let watchdog = Watchdog::seconds(120);
    let sidecar = Options::new().profile(Profile::Minimum).listen();
    let client = sidecar.connect();
    (watchdog, sidecar, client)
}

fn context<'a>(error: &'a WireError, key: &str) -> Option<&'a ContextValue> {
    error.context.get(key)
}

fn resource(error: &WireError) -> &str {
    match context(error, "resource") {
        Some(ContextValue::Text(name)) => name,
        other => panic!("{other:?} in {error:?}"),
    }
}

/// Whether the time of a request was over, which here may be the machine's doing.
fn is_late(error: &WireError) -> bool {
    match error.code {
        ErrorCode::Timeout => resource(error) == "timeoutMs",
        ErrorCode::Overloaded => resource(error) == "maxQueueMs",
        _ => false,
    }
}

/// How it ends when it gets the time for it.
#[track_caller]
fn outcome(client: &mut Client, run: impl Into<Run>) -> Segment {
    let run = run.into();
    let until = Instant::now() + SOON;
    loop {
        let segment = client.run(run.clone());
        if !segment.error.as_ref().is_some_and(is_late) {
            return segment;
        }
        assert!(Instant::now() < until, "it is never in time: {:?}", segment.error);
    }
}

#[track_caller]
fn assert_limit(error: &WireError, code: ErrorCode, name: &str, limit: u64) {
    assert_eq!((error.code, resource(error)), (code, name), "{error:?}");
    assert_eq!(context(error, "limit"), Some(&ContextValue::Number(limit)), "{error:?}");
}

#[track_caller]
fn refused(client: &mut Client, run: impl Into<Run>, code: ErrorCode, name: &str, limit: u64) {
    let segment = outcome(client, run);
    assert_limit(segment.error(), code, name, limit);
}

// ---- all of them together ----

// shows P-limits-in-force
#[test]
fn hello_tells_what_is_in_force() {
    let (_w, sidecar, _client) = start();
    let Answer::Hello { limits, .. } = sidecar.connect_silently().hello() else { panic!("no hello") };
    let expected = HelloLimits {
        max_frame_bytes: 131_072,
        max_source_bytes: 256,
        max_result_bytes: 1024,
        timeout_ms: 50,
        memory_limit_bytes: 1 << 20,
        stack_size_bytes: 64 << 10,
        suspension_timeout_ms: 500,
        max_host_calls: 1,
        max_state_mutations: 1,
        max_events: 1,
        max_in_flight: 2,
        max_states: 1,
        max_state_bytes: 1024,
        max_arena_bytes: 1 << 20,
        max_suspended: Some(1),
    };
    assert_eq!(limits, expected);
}

#[test]
fn an_execution_may_do_one_of_each_and_not_two() {
    let (_w, _s, mut client) = start();
    assert_eq!(outcome(&mut client, "return 1").value(), 1);
    let one = outcome(&mut client, calling("$state.a = 1; return 2"));
    assert_eq!((one.value(), one.mutations), (json!(2), json!([{"op": "set", "key": "a", "value": 1}])));
    let one = outcome(&mut client, calling("$emit('e', 1); return 2"));
    assert_eq!((one.value(), one.events[0]["name"].clone()), (json!(2), json!("e")));
    let limited = ErrorCode::ResourceLimit;
    refused(&mut client, calling("$state.get('a'); $state.get('b')"), limited, "maxHostCalls", 1);
    refused(&mut client, "return 'x'.repeat(1100)", limited, "maxResultBytes", 1024);
    refused(&mut client, &*format!("return 1 // {}", "x".repeat(256)), limited, "maxSourceBytes", 256);
    refused(
        &mut client,
        "const a = []; for (;;) a.push(new Array(1000).fill(7))",
        ErrorCode::MemoryLimit,
        "memoryLimitBytes",
        1 << 20,
    );
    let deep = outcome(&mut client, "function f() { f() } f()");
    assert_eq!((deep.code(), deep.error().name.as_deref()), (ErrorCode::ExecutionError, Some("RangeError")));
    assert_eq!(outcome(&mut client, "try { (function f() { f() })() } catch { return 'caught' }").value(), "caught");
    let endless = client.run("for (;;);");
    assert!(is_late(endless.error()), "{endless:?}");
    let logged = outcome(&mut client, "$log('x'.repeat(200)); return 1");
    let (told, rest) = (logged.logs[0]["message"].as_str().unwrap(), logged.logs.to_string());
    assert!(told.len() <= 64 && rest.contains("maxLogBytes is 64"), "{rest}");
    let broken = outcome(&mut client, "return }");
    assert_eq!(broken.code(), ErrorCode::CompilationError);
    client.ping();
}

#[test]
fn one_execution_may_be_suspended_in_either_style() {
    let (_w, _s, mut client) = start();
    for mode in [SuspendMode::Await, SuspendMode::Stack] {
        let source =
            if mode == SuspendMode::Await { "return await $ext.a.b()" } else { "const r = $ext.a.b(); return r" };
        let run = || calling(source).suspend_mode(mode);
        // whoever is slow finds its suspension expired, and tries again
        let mut last = None;
        eventually("one is resumed in time", SOON, || {
            let first = outcome(&mut client, run());
            if first.status != Status::Suspended {
                assert_limit(first.error(), ErrorCode::ResourceLimit, "maxSuspended", 1);
                return false;
            }
            let second = outcome(&mut client, run());
            let resumed = client.resume(&first.call().id, &json!(7));
            if second.status == Status::Suspended {
                assert_eq!(resumed.code(), ErrorCode::SuspensionError, "there were two of them");
                return false;
            }
            assert_limit(second.error(), ErrorCode::ResourceLimit, "maxSuspended", 1);
            let in_time = resumed.status == Status::Success;
            last = Some(resumed);
            in_time
        });
        assert_eq!(last.map(|last| last.value()), Some(json!(7)), "{mode:?}");
        eventually("what nobody resumes expires", SOON, || client.stats().suspended_instances == 0);
    }
    let first = outcome(&mut client, calling("return await $ext.a.b()"));
    eventually("it expires", SOON, || client.stats().suspended_instances == 0);
    assert_eq!(client.resume(&first.call().id, &json!(7)).code(), ErrorCode::SuspensionError);
    let first = outcome(&mut client, calling("return await $ext.a.b()"));
    client.cancel_suspension(&first.call().id);
    assert_eq!(client.resume(&first.call().id, &json!(7)).code(), ErrorCode::SuspensionError);
}

#[test]
fn one_request_waits_while_one_runs_and_the_rest_are_refused() {
    let (_w, _s, mut client) = start();
    let mut batch = Vec::new();
    for id in 100..110 {
        Run::source("for (;;);").message().encode(RequestId(id), 1 << 16, &mut batch).unwrap();
    }
    assert!(client.write_raw(&batch));
    let mut refused = 0;
    for id in 100..110 {
        let segment = client.segment(id);
        let error = segment.error();
        if !is_late(error) {
            assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}");
            assert!(["maxQueued", "maxInFlight"].contains(&resource(error)), "{error:?}");
            assert!(context(error, "retryAfterMs").is_some() && error.retryable);
            refused += 1;
        }
    }
    assert!(refused > 0, "ten were taken");
    assert_eq!(outcome(&mut client, "return 1").value(), 1);
}

#[test]
fn everything_else_that_can_be_asked_is_answered_by_its_kind() {
    let (_w, _s, mut client) = start();
    let compiled = |client: &mut Client, mode| {
        client.request(&ClientMessage::Precompile(Precompile {
            source: "return 5",
            handler_name: None,
            suspend_mode: mode,
        }))
    };
    let mut handle = None;
    eventually("it is compiled", SOON, || {
        handle = match compiled(&mut client, None) {
            Answer::Compiled { handle, .. } => Some(handle),
            Answer::Error(error) if is_late(&error) || error.code == ErrorCode::Timeout => None,
            other => panic!("{other:?}"),
        };
        handle.is_some()
    });
    // there is no room for it in the cache
    let by_handle = outcome(&mut client, Run::handle(&handle.unwrap()));
    assert_eq!(by_handle.code(), ErrorCode::InvalidHandler);
    assert_eq!(context(by_handle.error(), "reason"), Some(&ContextValue::Text("unknown".into())));
    eventually("it is checked", SOON, || match client.request(&ClientMessage::Check(Check { source: "$emit('e')" })) {
        Answer::Checked(checked) => checked.capabilities == ["events:emit:e"],
        Answer::Error(error) if is_late(&error) || error.code == ErrorCode::Timeout => false,
        other => panic!("{other:?}"),
    });
    let stats = client.stats();
    assert_eq!((stats.cache_entries, stats.resident_states), (0, 0));
    assert!(client.metrics().contains("nexus_handler_executions_total"));
    assert!(client.executions()["total"].is_u64());
    assert!(!client.kill(u64::MAX));
    let unknown = client.request(&ClientMessage::Cancel(Cancel::Request(77_777)));
    assert!(matches!(unknown, Answer::Done { cancelled: false }));
    assert!(matches!(client.request(&ClientMessage::Kill(Kill { execution: 0 })), Answer::Done { .. }));
    client.ping();
    assert!(matches!(client.request(&ClientMessage::Shutdown), Answer::Done { .. }));
    assert!(client.is_closed());
}

#[test]
fn one_small_state_may_be_left_with_it() {
    let (_w, sidecar, mut client) = start();
    let id = client.create_state(&json!({"n": 1}));
    let over = client.try_create_state(&[0x80]).unwrap_err();
    assert_limit(&over, ErrorCode::ResourceLimit, "maxStates", 1);
    let elsewhere = sidecar.connect().try_create_state(&nexus_tests::run::pack(&json!({"n": 1}))).unwrap_err();
    assert_limit(&elsewhere, ErrorCode::ResourceLimit, "maxTotalStateBytes", 1024);
    let large = client.patch_state(&id, &json!({"k": "x".repeat(600)}), &[], None).unwrap_err();
    assert_limit(&large, ErrorCode::ResourceLimit, "maxStateBytes", 1024);
    assert_eq!(client.patch_state(&id, &json!({"n": 2}), &[], None), Ok(2));
    let ran = outcome(&mut client, calling("$state.n = 3; return 4").resident(&id));
    assert_eq!((ran.value(), ran.state_version), (json!(4), Some(3)));
    assert_eq!(client.snapshot_state(&id, None), Ok((3, json!({"n": 3}))));
    assert!(client.dispose_state(&id));
    client.create_state(&json!({}));
}

#[test]
fn one_piece_of_shared_memory_may_be_had() {
    let (_w, sidecar, mut client) = start();
    let make = ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 });
    let made = client.request(&make);
    assert!(matches!(made, Answer::Arena { bytes: 1_048_576, name: Some(_), .. }), "{made:?}");
    let Answer::Error(error) = sidecar.connect().request(&make) else { panic!("there is no more") };
    assert_limit(&error, ErrorCode::ResourceLimit, "maxTotalArenaBytes", 1 << 20);
    let larger = client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: (1 << 20) + 1 }));
    assert!(
        matches!(&larger, Answer::Error(error) if error.code == ErrorCode::ResourceLimit)
            || matches!(larger, Answer::Arena { bytes: 1_048_576, .. }),
        "{larger:?}"
    );
}

#[test]
fn a_frame_is_as_large_as_it_may_be_and_no_larger() {
    let (_w, sidecar, mut client) = start();
    let mut frame = Vec::new();
    // the largest one: its payload fills what the rest of it leaves
    let run = |payload: usize| {
        Run::source("return 1").args_bytes([&[0xc6][..], &(payload as u32).to_be_bytes(), &vec![0; payload]].concat())
    };
    run(1000).message().encode(RequestId(5), 1 << 20, &mut frame).unwrap();
    let beside = frame.len() - 4 - 1000;
    let largest = run(131_072 - beside - 2);
    assert_eq!(outcome(&mut client, largest).value(), 1);
    client.write_raw(&131_073u32.to_le_bytes());
    let reply = client.next_reply().expect("it is told");
    assert!(matches!(&reply.answer, Answer::Error(error) if error.code == ErrorCode::ProtocolError), "{reply:?}");
    assert!(client.is_closed());
    sidecar.connect().ping();
}

#[test]
fn it_ends_when_it_is_told_to() {
    let (_w, mut sidecar, mut client) = start();
    client.start("for (;;);");
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
}

// ---- each at its lowest ----

/// A sidecar with one limit at the lowest value that it can have.
fn lowest(setting: &str, value: u64) -> (Sidecar, Client) {
    let sidecar = Options::new().flag(setting, value).listen();
    let client = sidecar.connect();
    (sidecar, client)
}

#[test]
fn each_count_may_be_none() {
    let _w = Watchdog::seconds(120);
    let cases = [
        ("max-host-calls", "maxHostCalls", "$state.get('k')"),
        ("max-state-mutations", "maxStateMutations", "$state.k = 1"),
        ("max-events", "maxEvents", "$emit('e', 1)"),
        ("max-suspended", "maxSuspended", "await $ext.a.b()"),
    ];
    for (setting, name, source) in cases {
        let (_s, mut client) = lowest(setting, 0);
        let segment = client.run(calling(source));
        assert_limit(segment.error(), ErrorCode::ResourceLimit, name, 0);
        client.still_works();
    }
}

#[test]
fn each_number_of_bytes_may_be_none_or_one() {
    let _w = Watchdog::seconds(120);
    for (setting, value, name, source) in [
        ("max-source-bytes", 1, "maxSourceBytes", "return 1"),
        ("max-result-bytes", 1, "maxResultBytes", "return 'xy'"),
    ] {
        let (_s, mut client) = lowest(setting, value);
        assert_limit(client.run(source).error(), ErrorCode::ResourceLimit, name, value);
        client.ping();
    }
    let (_s, mut client) = lowest("max-source-bytes", 1);
    assert_eq!(client.run(";").value(), json!(null));
    let (_s, mut client) = lowest("max-result-bytes", 1);
    assert_eq!(client.run("return 1").value(), 1);
    let (_s, mut client) = lowest("max-log-bytes", 0);
    let segment = client.run("$log('text'); return 1");
    assert!(segment.value() == 1 && !segment.logs.to_string().contains("text"), "{segment:?}");
    let (_s, mut client) = lowest("max-cache-size-bytes", 0);
    assert_eq!([(); 3].map(|()| client.run("return 1").cache_hit), [false; 3]);
    for (setting, name) in [
        ("max-states", "maxStates"),
        ("max-state-bytes", "maxStateBytes"),
        ("max-total-state-bytes", "maxTotalStateBytes"),
    ] {
        let (_s, mut client) = lowest(setting, 0);
        assert_limit(&client.try_create_state(&[0x80]).unwrap_err(), ErrorCode::ResourceLimit, name, 0);
    }
    for (setting, name) in [("max-arena-bytes", "maxArenaBytes"), ("max-total-arena-bytes", "maxTotalArenaBytes")] {
        let (_s, mut client) = lowest(setting, 0);
        let answer = client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 }));
        let Answer::Error(error) = answer else { panic!("{answer:?}") };
        assert_limit(&error, ErrorCode::ResourceLimit, name, 0);
    }
}

#[test]
fn each_time_may_be_none() {
    let _w = Watchdog::seconds(120);
    // no time in the queue: who finds an instance runs, and who does not is refused
    let (_s, mut client) = lowest("max-queue-ms", 0);
    let segment = client.run("return 1");
    assert!(segment.status == Status::Success || segment.code() == ErrorCode::Overloaded, "{segment:?}");
    let (_s, mut client) = lowest("suspension-timeout-ms", 1);
    let first = client.run_suspended(calling("return await $ext.a.b()"));
    eventually("it expires", SOON, || client.stats().suspended_instances == 0);
    assert_eq!(client.resume(&first.call().id, &json!(1)).code(), ErrorCode::SuspensionError);
    // no deadline: until it is cancelled
    let (_s, mut client) = lowest("timeout-ms", 0);
    let endless = client.start("for (;;);");
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    assert!(client.cancel_request(endless));
    assert_eq!(client.segment(endless).code(), ErrorCode::Cancelled);
    let (mut sidecar, mut client) = lowest("drain-timeout-ms", 0);
    client.start(Run::source("for (;;);"));
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
}

#[test]
fn a_queue_may_have_no_place() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 1).flag("max-queued", 0).listen();
    let (mut client, mut busy) = (sidecar.connect(), sidecar.connect());
    let running = busy.start("for (;;);");
    eventually("it runs", SOON, || busy.stats().active_instances == 1);
    assert_limit(client.run("return 1").error(), ErrorCode::Overloaded, "maxQueued", 0);
    assert!(busy.cancel_request(running));
    assert_eq!(busy.segment(running).code(), ErrorCode::Cancelled);
    eventually("there is room again", SOON, || client.run("return 1").error.is_none());
}
