//! The whole loop, against the real sidecar.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use nexus_client::{CallError, CancelToken, Client, Context, ErrorCode, Extensions, Status};
use serde_json::{Value, json};
use support::{client, eventually, options, watched};

fn math() -> Extensions {
    Extensions::new()
        .method("math", "add", |args| Ok(args.get::<f64>(0)? + args.get::<f64>(1)?))
        .async_method("math", "double", |args| async move { Ok(args.get::<f64>(0)? * 2.0) })
        .method("math", "fail", |_| -> Result<(), CallError> {
            Err(CallError::new("out of numbers").with_code("E_NUM"))
        })
}

#[test]
fn extensions_are_called_until_the_handler_returns() {
    watched(|| {
        let code = "
            let sum = 0
            for (const n of $args) sum = await $ext.math.add(sum, await $ext.math.double(n))
            return sum";
        let context = Context::new().args(&[1, 2, 3]).grant("ext:math");
        let outcome = client().run(code).context(&context).extensions(math()).wait().unwrap();
        assert_eq!(outcome.value::<f64>().unwrap(), 12.0);
        let seqs: Vec<_> = outcome.segments.iter().map(|segment| segment.seq).collect();
        assert_eq!(seqs, [0, 1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn functions_that_block_run_at_the_same_time() {
    watched(|| {
        let barrier = Arc::new(Barrier::new(3));
        let extensions = Extensions::new().method("x", "meet", move |args| {
            // Comes back only when three are here at once.
            barrier.wait();
            args.get::<i32>(0)
        });
        let code = "return await Promise.all([1, 2, 3].map((n) => $ext.x.meet(n)))";
        let outcome = client().run(code).grant("ext:x.meet").extensions(extensions).wait().unwrap();
        assert_eq!(outcome.value::<Vec<i32>>().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn segments_are_delivered_in_order_before_the_next_answer() {
    watched(|| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (in_segment, in_call) = (Arc::clone(&seen), Arc::clone(&seen));
        let extensions = Extensions::new().method("x", "load", move |_| {
            // The loading flag was delivered although the handler waits for this very call.
            Ok(in_call.lock().unwrap().contains(&(0, 1)))
        });
        let code = "$state.loading = true; const seen = await $ext.x.load(); $state.loading = false; $state.done = 1; return seen";
        let context = Context::new().state(&json!({})).grants(["state:write:*", "ext:x"]);
        let outcome = client()
            .run(code)
            .context(&context)
            .extensions(extensions)
            .on_segment(move |segment| {
                in_segment.lock().unwrap().push((segment.seq, segment.state_mutations().unwrap().len()));
            })
            .wait()
            .unwrap();
        assert!(outcome.value::<bool>().unwrap());
        assert_eq!(*seen.lock().unwrap(), [(0, 1), (1, 2)]);
    });
}

#[test]
fn answers_of_many_calls_in_any_order_end_in_ordered_segments() {
    watched(|| {
        let seqs = Arc::new(Mutex::new(Vec::new()));
        let delivered = Arc::clone(&seqs);
        let extensions = Extensions::new().method("x", "wait", |args| {
            let n: u64 = args.get(0)?;
            std::thread::sleep(Duration::from_micros((n * 7919) % 3000));
            Ok(n)
        });
        let code = "
            const all = await Promise.all(Array.from({ length: 40 }, (_, n) => $ext.x.wait(n)))
            return all.reduce((a, b) => a + b)";
        let outcome = client()
            .run(code)
            .grant("ext:x")
            .extensions(extensions)
            .on_segment(move |segment| delivered.lock().unwrap().push(segment.seq))
            .wait()
            .unwrap();
        assert_eq!(outcome.value::<u32>().unwrap(), 780);
        assert_eq!(*seqs.lock().unwrap(), (0..=40).collect::<Vec<_>>());
    });
}

#[test]
fn a_failed_call_is_an_error_in_the_handler() {
    watched(|| {
        let client = client();
        let context = Context::new().grant("ext:*");
        let caught = "try { await $ext.math.fail() } catch (e) { return [e.message, e.code, e.extension, e.method] }";
        let outcome = client.run(caught).context(&context).extensions(math()).wait().unwrap();
        assert_eq!(outcome.value::<Value>().unwrap(), json!(["out of numbers", "E_NUM", "math", "fail"]));
        let error = client.run("\n\nawait $ext.math.fail()").context(&context).extensions(math()).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::ExecutionError);
        assert!(error.to_string().contains("out of numbers"));
        let wrong_type = "try { await $ext.math.double('x') } catch (e) { return e.message }";
        let message: String =
            client.run(wrong_type).context(&context).extensions(math()).wait().unwrap().value().unwrap();
        assert!(message.starts_with("argument 0: "), "{message}");
    });
}

#[test]
fn names_that_there_are_not_are_refused() {
    watched(|| {
        let client = client();
        let context = Context::new().grant("ext:*");
        let run = |code: &str| client.run(code).context(&context).extensions(math()).wait().unwrap_err().code();
        assert_eq!(run("await $ext.nope.x()"), ErrorCode::ExtensionNotFound);
        assert_eq!(run("await $ext.math.nope()"), ErrorCode::MethodNotFound);
        let listed = client
            .run("return [$ext.list(), $ext.exists('math')]")
            .context(&context)
            .extensions(math())
            .wait()
            .unwrap();
        assert_eq!(listed.value::<Value>().unwrap(), json!([["math"], true]));
    });
}

#[test]
fn a_call_without_its_capability_never_reaches_the_function() {
    watched(|| {
        let called = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&called);
        let extensions = Extensions::new().method("x", "y", move |_| Ok(count.fetch_add(1, Ordering::SeqCst)));
        let error = client().run("await $ext.x.y()").grant("ext:x.z").extensions(extensions).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied);
        assert_eq!(error.as_sidecar().unwrap().capability.as_deref(), Some("ext:x.y"));
        assert_eq!(called.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_failed_run_has_delivered_its_last_segment() {
    watched(|| {
        let last = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&last);
        let context = Context::new().grant("events:emit:*");
        let error = client()
            .run("$emit('before', 1); null.x")
            .context(&context)
            .on_segment(move |segment| {
                *seen.lock().unwrap() = Some((segment.status, segment.events().unwrap().len()));
            })
            .wait()
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::ExecutionError);
        assert_eq!(*last.lock().unwrap(), Some((Status::Error, 1)));
    });
}

#[test]
fn a_token_ends_a_handler_that_runs() {
    watched(|| {
        let client = Client::spawn(options().timeout_ms(50_000)).wait().unwrap();
        let token = CancelToken::new();
        let call = client.run("for (;;);").cancel(&token).start();
        let canceller = {
            let (client, token) = (client.clone(), token.clone());
            std::thread::spawn(move || {
                eventually("the handler runs", || client.stats().wait().unwrap().active_instances == 1);
                token.cancel();
            })
        };
        assert_eq!(call.wait().unwrap_err().code(), ErrorCode::Cancelled);
        canceller.join().unwrap();
        let later = client.run("return 1").cancel(&token).wait();
        assert_eq!(later.unwrap_err().code(), ErrorCode::Cancelled);
    });
}

#[test]
fn a_token_ends_a_handler_that_waits() {
    watched(|| {
        let client = client();
        let token = CancelToken::new();
        let stop = token.clone();
        let extensions = Extensions::new().async_method("x", "never", move |_| {
            stop.cancel();
            std::future::pending::<Result<(), CallError>>()
        });
        let error =
            client.run("await $ext.x.never()").grant("ext:x").extensions(extensions).cancel(&token).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Cancelled);
        eventually("no suspended instance", || client.stats().wait().unwrap().suspended_instances == 0);
    });
}

#[test]
fn a_dropped_run_leaves_no_execution_behind() {
    watched(|| {
        let client = client();
        let extensions =
            Extensions::new().async_method("x", "never", |_| std::future::pending::<Result<(), CallError>>());
        let context = Context::new().grant("ext:x");
        let mut call = pin!(client.run("await $ext.x.never()").context(&context).extensions(extensions).start());
        let mut poll = || call.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
        eventually("suspended", || {
            assert!(poll().is_pending());
            client.stats().wait().unwrap().suspended_instances == 1
        });
        // One more look, so that the run knows of its suspension.
        assert_eq!(poll().map(|_| ()), Poll::Pending);
        call.set(client.run("return 1").start());
        eventually("no suspended instance", || client.stats().wait().unwrap().suspended_instances == 0);
    });
}

#[test]
fn runs_are_futures_for_any_executor() {
    watched(|| {
        let client = client();
        let context = Context::new().grant("ext:math");
        let mut runs: Vec<_> = (0..20)
            .map(|n| {
                let context = context.clone().args(&n);
                Box::pin(
                    client.run("return await $ext.math.double($args)").context(&context).extensions(math()).start(),
                )
            })
            .collect();
        let mut results = vec![None; runs.len()];
        // The plainest executor: it asks again and again.
        eventually("all are done", || {
            for (run, result) in runs.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
                let mut context = std::task::Context::from_waker(Waker::noop());
                if let Poll::Ready(outcome) = run.as_mut().poll(&mut context) {
                    *result = Some(outcome.unwrap().value::<f64>().unwrap());
                }
            }
            results.iter().all(Option::is_some)
        });
        assert_eq!(results, (0..20).map(|n| Some(f64::from(n) * 2.0)).collect::<Vec<_>>());
    });
}

#[test]
fn a_compiled_handler_can_be_run() {
    watched(|| {
        let client = client();
        let compiled = client.precompile("return await $ext.math.add(1, 2)").wait().unwrap();
        for _ in 0..3 {
            let outcome = client.run(&compiled).grant("ext:math").extensions(math()).wait().unwrap();
            assert_eq!(outcome.value::<f64>().unwrap(), 3.0);
        }
    });
}

#[test]
fn an_answer_that_no_frame_holds_fails_its_call() {
    watched(|| {
        let client = Client::spawn(options().max_frame_bytes(1 << 20).max_result_bytes(1 << 19)).wait().unwrap();
        let extensions = Extensions::new().method("x", "huge", |_| Ok("x".repeat(2 << 20)));
        let code = "try { await $ext.x.huge() } catch (e) { return e.code }";
        let outcome = client.run(code).grant("ext:x").extensions(extensions).wait().unwrap();
        assert_eq!(outcome.value::<String>().unwrap(), "SERIALIZATION_ERROR");
    });
}

#[test]
fn a_call_that_is_not_answered_in_time_fails_in_the_handler_which_may_go_on() {
    watched(|| {
        let client = Client::spawn(options().suspension_timeout_ms(60)).wait().unwrap();
        let dropped = Arc::new(());
        let in_call = Arc::clone(&dropped);
        let extensions = Extensions::new()
            .async_method("x", "silent", move |_| {
                let held = Arc::clone(&in_call);
                async move {
                    std::future::pending::<()>().await;
                    drop(held);
                    Ok(())
                }
            })
            .method("x", "quick", |args| args.get::<i32>(0));
        let said = "$ext.x.silent() was not answered within suspensionTimeoutMs (60 ms)";
        let code = "
            try { await $ext.x.silent() } catch (e) { return [e.message, e.code, e.extension, e.method, await $ext.x.quick(7)] }";
        let context = Context::new().grant("ext:x");
        let outcome = client.run(code).context(&context).extensions(extensions.clone()).wait().unwrap();
        assert_eq!(outcome.value::<Value>().unwrap(), json!([said, "TIMEOUT", "x", "silent", 7]));
        for code in ["return await $ext.x.silent()", "const r = $ext.x.silent(); return r"] {
            let error = client.run(code).context(&context).extensions(extensions.clone()).wait().unwrap_err();
            assert_eq!((error.code(), error.to_string().contains(said)), (ErrorCode::ExecutionError, true), "{error}");
        }
        drop(extensions);
        // nobody waits for what is late
        eventually("its future is dropped", || Arc::strong_count(&dropped) == 1);
        assert_eq!(client.stats().wait().unwrap().suspended_instances, 0);
    });
}

#[test]
fn of_many_calls_each_is_late_by_itself() {
    watched(|| {
        let client = Client::spawn(options().suspension_timeout_ms(300)).wait().unwrap();
        let extensions = Extensions::new().async_method("x", "slow", |args| async move {
            let n = args.get::<i32>(0)?;
            if n % 2 == 1 {
                std::future::pending::<()>().await;
            }
            Ok(n)
        });
        let code = "
            return (await Promise.allSettled(Array.from({ length: 40 }, (_, n) => $ext.x.slow(n))))
                .map((r) => r.value ?? r.reason.code)";
        let outcome = client.run(code).grant("ext:x").extensions(extensions).wait().unwrap();
        let expected: Vec<Value> = (0..40).map(|n| if n % 2 == 1 { json!("TIMEOUT") } else { json!(n) }).collect();
        assert_eq!(outcome.value::<Vec<Value>>().unwrap(), expected);
    });
}

#[test]
fn an_extension_that_is_handed_over_is_granted_and_a_list_of_capabilities_is_exact() {
    watched(|| {
        let client = client();
        let code = "return await $ext.math.double(4)";
        let outcome = client.run(code).extensions(math()).wait().unwrap();
        assert_eq!(outcome.value::<f64>().unwrap(), 8.0);
        let none: [&str; 0] = [];
        for context in [Context::new().grants(none), Context::new().grant("state:read:*")] {
            let error = client.run(code).context(&context).extensions(math()).wait().unwrap_err();
            assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error}");
        }
        let error = client.run("$state.a = 1").extensions(math()).wait().unwrap_err();
        assert_eq!(error.code(), ErrorCode::PermissionDenied, "{error}");
    });
}
