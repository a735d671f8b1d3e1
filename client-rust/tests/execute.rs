//! Requests one by one, against the real sidecar.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nexus_client::{
    CallError, CancelTarget, Client, Compiled, Context, ErrorCode, Event, Payload, Resolution, Segment, StateMutation,
    Status, SuspendMode,
};
use serde_json::{Value, json};
use support::{client, eventually, options, scratch, watched};

#[test]
fn values_and_effects_come_back_typed() {
    watched(|| {
        let context = Context::new()
            .state(&json!({ "n": 1, "old": true }))
            .args(&json!({ "by": 41 }))
            .scope(&json!({ "unit": "m" }))
            .grants(["state:read:*", "state:write:*", "events:emit:*", "view:update:*"]);
        let code = "
            $state.n += $args.by
            delete $state.old
            $emit('changed', [1, 2])
            $view.setFilter('grid', 'x')
            $log.warn('careful')
            return { n: $state.n, unit: $scope.unit }";
        let segment = client().execute(code).context(&context).wait().unwrap();
        assert_eq!((segment.status, segment.seq), (Status::Success, 0));
        assert_eq!(segment.value::<Value>().unwrap(), json!({ "n": 42, "unit": "m" }));
        let set = StateMutation::Set { key: "n".into(), value: Payload::encode(&42).unwrap() };
        assert_eq!(segment.state_mutations().unwrap(), [set, StateMutation::Delete { key: "old".into() }]);
        let [Event { name, payload, timestamp_ms, .. }] = &segment.events().unwrap()[..] else { panic!("one event") };
        assert_eq!((name.as_str(), payload.decode::<Vec<i32>>().unwrap()), ("changed", vec![1, 2]));
        assert!(*timestamp_ms > 1.7e12);
        assert_eq!(segment.view_commands().unwrap()[0].command, "setFilter");
        assert_eq!(segment.logs().unwrap()[0].level, "warn");
        assert!(segment.metrics.duration_us > 0);
    });
}

#[test]
fn a_failed_handler_is_a_segment_with_its_effects_and_a_location() {
    watched(|| {
        let context = Context::new().state(&json!({})).grant("state:write:a");
        let segment = client().execute("$state.a = 1\nthrow new TypeError('no')").context(&context).wait().unwrap();
        assert_eq!(segment.status, Status::Error);
        assert_eq!(segment.state_mutations().unwrap().len(), 1);
        let error = segment.into_result().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ExecutionError);
        let wire = error.as_sidecar().unwrap();
        assert_eq!((wire.name.as_deref(), wire.location.unwrap().line), (Some("TypeError"), 2));
        assert!(wire.message.contains("no"));
    });
}

// shows P-bad-value-goes-on
#[test]
fn a_wrong_value_fails_its_request_and_nothing_else() {
    watched(|| {
        let client = client();
        let error = client.execute("return 1").grant("fs:read:/").wait().and_then(|s| s.into_result());
        let error = error.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.to_string().contains("fs:read:/"), "{error}");
        let torn = Context::new().args_payload(Payload::from_bytes(vec![0x92, 1]));
        let error = client.execute("return 1").context(&torn).wait().and_then(|s| s.into_result()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert_eq!(client.execute("return 1").wait().unwrap().value::<i32>().unwrap(), 1);
    });
}

#[test]
fn a_request_that_no_frame_holds_is_refused_here_and_the_connection_goes_on() {
    watched(|| {
        let client = Client::spawn(options().max_frame_bytes(1 << 20).max_result_bytes(1 << 19)).wait().unwrap();
        assert_eq!(client.limits().max_frame_bytes, 1 << 20);
        let context = Context::new().args(&"x".repeat(2 << 20));
        assert_eq!(client.execute("return 1").context(&context).wait().unwrap_err().code(), ErrorCode::InvalidArgument);
        client.ping().wait().unwrap();
    });
}

#[test]
fn large_values_travel_both_ways() {
    watched(|| {
        let records: Vec<_> =
            (0..20_000).map(|n| json!({ "id": n, "name": format!("record {n}"), "score": 0.5 })).collect();
        let context = Context::new().state(&json!({ "records": records })).grant("state:read:records");
        let segment =
            client().execute("return $state.records.map((r) => ({ ...r, score: r.id }))").context(&context).wait();
        let back: Vec<BTreeMap<String, Value>> = segment.unwrap().into_result().unwrap().value().unwrap();
        assert_eq!(back.len(), 20_000);
        assert_eq!(back[19_999]["score"], 19_999);
    });
}

#[test]
fn a_handler_is_compiled_for_the_style_asked_for_and_again_for_the_same_one() {
    watched(|| {
        let cache = scratch("styles-cache");
        let source = "const p = $ext.a.b(); return [p instanceof Promise, await p]";
        let context = Context::new().grant("ext:a");
        let answer = || Resolution::Value(Payload::encode(&7).unwrap());
        let is_promise = |client: &Client, compiled: &Compiled| {
            let first = client.execute(compiled).context(&context).wait().unwrap();
            assert_eq!(first.status, Status::Suspended, "{first:?}");
            let last = client.resume(&first.suspensions[0].id, answer()).wait().unwrap().into_result().unwrap();
            let (is_promise, value) = last.value::<(bool, u32)>().unwrap();
            assert_eq!(value, 7);
            is_promise
        };
        let first = Client::spawn(options().cache_dir(&cache)).wait().unwrap();
        let compiled = [SuspendMode::Await, SuspendMode::Stack].map(|mode| {
            let compiled = first.precompile(source).suspend_mode(mode).wait().unwrap();
            assert_eq!(compiled.suspend_mode(), mode);
            compiled
        });
        assert_eq!([is_promise(&first, &compiled[0]), is_promise(&first, &compiled[1])], [true, false]);
        let other = context.clone().suspend_mode(SuspendMode::Await);
        let refused = first.execute(&compiled[1]).context(&other).wait().and_then(Segment::into_result);
        assert_eq!(refused.unwrap_err().code(), ErrorCode::InvalidArgument);
        first.shutdown().wait().unwrap();
        for entry in std::fs::read_dir(&cache).unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|extension| extension == "qjsc") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let second = Client::spawn(options().cache_dir(&cache)).wait().unwrap();
        assert_eq!([is_promise(&second, &compiled[0]), is_promise(&second, &compiled[1])], [true, false]);
    });
}

#[test]
fn a_compiled_handler_runs_and_outlives_the_sidecar_that_made_it() {
    watched(|| {
        let cache = scratch("shared-cache");
        let first = Client::spawn(options().cache_dir(&cache)).wait().unwrap();
        let compiled = first.precompile("return $args + 1").handler_name("inc").wait().unwrap();
        assert_eq!(compiled.suspend_mode(), SuspendMode::Await);
        let context = Context::new().args(&1);
        for _ in 0..2 {
            assert_eq!(first.execute(&compiled).context(&context).wait().unwrap().value::<i32>().unwrap(), 2);
        }
        first.shutdown().wait().unwrap();
        // The next sidecar believes the handle, whose key is kept, and has never seen the handler.
        for entry in std::fs::read_dir(&cache).unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|extension| extension == "qjsc") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let second = Client::spawn(options().cache_dir(&cache)).wait().unwrap();
        let segment = second.execute(&compiled).context(&context).wait().unwrap().into_result().unwrap();
        assert_eq!(segment.value::<i32>().unwrap(), 2);
    });
}

#[test]
fn a_source_that_does_not_parse_is_an_error_at_its_line() {
    watched(|| {
        let client = client();
        for error in [
            client.precompile("const a = 1\n\nreturn a +* 1").wait().unwrap_err(),
            client.check("const a = 1\n\nreturn a +* 1").wait().unwrap_err(),
        ] {
            assert_eq!(error.code(), ErrorCode::CompilationError);
            assert_eq!(error.as_sidecar().unwrap().location.unwrap().line, 3);
        }
    });
}

#[test]
fn a_suspension_is_resumed_once() {
    watched(|| {
        let client = client();
        let context = Context::new().grant("ext:db.get");
        let code =
            "try { return await $ext.db.get('k', 2) } catch (e) { return `${e.name}: ${e.message} (${e.extension})` }";
        let suspended = client.execute(code).context(&context).wait().unwrap();
        assert_eq!(suspended.status, Status::Suspended);
        let [call] = &suspended.suspensions[..] else { panic!("one call") };
        assert_eq!((call.extension.as_str(), call.method.as_str()), ("db", "get"));
        assert_eq!(call.args.decode::<(String, i32)>().unwrap(), ("k".into(), 2));
        let value = Resolution::Value(Payload::encode(&json!({ "v": 1 })).unwrap());
        let done = client.resume(&call.id, value.clone()).wait().unwrap();
        assert_eq!((done.seq, done.value::<Value>().unwrap()), (1, json!({ "v": 1 })));
        let again = client.resume(&call.id, value).wait().and_then(|segment| segment.into_result()).unwrap_err();
        assert_eq!(again.code(), ErrorCode::SuspensionError);

        let suspended = client.execute(code).context(&context).wait().unwrap();
        let failure = Resolution::Failure(CallError::new("not there"));
        let done = client.resume(&suspended.suspensions[0].id, failure).wait().unwrap();
        assert_eq!(done.value::<String>().unwrap(), "Error: not there (db)");
    });
}

#[test]
fn a_suspended_execution_can_be_cancelled_once() {
    watched(|| {
        let client = client();
        let suspended = client.execute("await $ext.a.b()").grant("ext:a").wait().unwrap();
        let target = CancelTarget::Suspension(suspended.suspensions[0].id.clone());
        assert!(client.cancel(&target).wait().unwrap());
        assert!(!client.cancel(&target).wait().unwrap());
        eventually("no suspended instance", || client.stats().wait().unwrap().suspended_instances == 0);
    });
}

#[test]
fn a_dropped_call_stops_its_handler() {
    watched(|| {
        let client = Client::spawn(options().max_instances(1).timeout_ms(50_000)).wait().unwrap();
        let endless = client.execute("for (;;);").start();
        eventually("the handler runs", || client.stats().wait().unwrap().active_instances == 1);
        let started = Instant::now();
        drop(endless);
        assert_eq!(client.execute("return 1").wait().unwrap().value::<i32>().unwrap(), 1);
        assert!(started.elapsed() < Duration::from_secs(20), "the handler was not stopped");
    });
}

#[test]
fn a_dropped_call_of_a_handler_that_suspends_leaves_no_suspension() {
    watched(|| {
        let client = client();
        let context = Context::new().grant("ext:a");
        // Dropped at different times: before the answer, on its way, after it.
        for pause_us in (0..40).map(|n| n * 25) {
            let call = client.execute("await $ext.a.b()").context(&context).start();
            std::thread::sleep(Duration::from_micros(pause_us));
            drop(call);
        }
        eventually("no suspended instance", || client.stats().wait().unwrap().suspended_instances == 0);
    });
}

#[test]
fn many_requests_of_many_threads_get_their_own_answers() {
    watched(|| {
        let client = client();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let client = client.clone();
                scope.spawn(move || {
                    let calls: Vec<_> = (0..50)
                        .map(|n| client.execute("return $args * 2").args(&(thread * 1000 + n)).start())
                        .collect();
                    for (n, call) in calls.into_iter().enumerate() {
                        let segment = call.wait().unwrap().into_result().unwrap();
                        assert_eq!(segment.value::<usize>().unwrap(), (thread * 1000 + n) * 2);
                    }
                });
            }
        });
        assert_eq!(client.stats().wait().unwrap().total_executions, 400);
    });
}

#[test]
fn figures_and_metrics_can_be_asked_for() {
    watched(|| {
        let client = client();
        client.execute("return 1").wait().unwrap();
        assert!(client.metrics().wait().unwrap().contains("nexus_handler_executions_total{status=\"success\"} 1"));
        assert_eq!(client.stats().wait().unwrap().total_executions, 1);
        assert_eq!(client.engine().len(), 64);
        assert_eq!(Some(client.pid()), client.child_pid());
    });
}

#[test]
fn a_timeout_is_an_error_of_its_own() {
    watched(|| {
        let context = Context::new().timeout(Duration::from_millis(50));
        let error = client().execute("for (;;);").context(&context).wait().unwrap().into_result().unwrap_err();
        assert_eq!((error.code(), error.retryable()), (ErrorCode::Timeout, false));
    });
}

#[test]
fn a_token_ends_a_call_of_one_segment_at_once_and_its_execution_soon() {
    watched(|| {
        let client = Client::spawn(support::options().timeout_ms(50_000)).wait().unwrap();
        let token = nexus_client::CancelToken::new();
        let endless = client.execute("for (;;);").start().cancel_on(&token);
        let quick = client.execute("return 1").start().cancel_on(&token);
        assert_eq!(quick.wait().unwrap().value::<u32>().unwrap(), 1);
        let waiting = std::thread::spawn(move || endless.wait());
        support::eventually("it runs", || client.stats().wait().unwrap().active_instances == 1);
        token.cancel();
        assert!(matches!(waiting.join().unwrap(), Err(nexus_client::Error::Cancelled)));
        support::eventually("it has ended", || client.stats().wait().unwrap().active_instances == 0);
        // One that is cancelled already ends what it is given.
        let late = client.execute("for (;;);").start().cancel_on(&token);
        assert!(matches!(late.wait(), Err(nexus_client::Error::Cancelled)));
    });
}

#[test]
fn calls_of_an_execution_can_be_answered_one_at_a_time() {
    watched(|| {
        let client = client();
        let source = "return await Promise.all([$ext.a.b(1), $ext.a.b(2), $ext.a.b(3)])";
        let mut segment = client.execute(source).grant("ext:a").wait().unwrap();
        while let Some(call) = segment.suspension() {
            let (n,): (u32,) = call.args.decode().unwrap();
            let value = Payload::encode(&(n * 10)).unwrap();
            segment = client.resume(&call.id, Resolution::Value(value)).wait().unwrap();
        }
        assert_eq!(segment.value::<Vec<u32>>().unwrap(), [10, 20, 30]);
    });
}
