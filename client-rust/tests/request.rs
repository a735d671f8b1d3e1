//! Requests that are put together, runs as streams, and what an extension is told of its call.

mod support;

use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_core::Stream;
use nexus_client::{
    CallError, CancelToken, Client, CurrentCall, ErrorCode, Extensions, Limits, Log, Progress, Running, Segment,
};
use serde_json::json;
use support::{client, eventually, options, watched};

#[test]
fn a_request_says_all_that_there_is_to_say_and_is_awaited() {
    watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let client = Client::spawn(options()).await.unwrap();
            let request = client.run("$state.n += $args + $scope.by; $emit('e', 1); return Math.random()");
            let request = request.state(&json!({ "n": 1 })).args(&2).scope(&json!({ "by": 3 })).seed(7).panel_id("p");
            let request = request.grants(["state:read:n", "state:write:n"]).grant("events:emit:e").handler_name("h");
            let outcome = request.timeout(Duration::from_secs(40)).limits(Limits::new().max_events(1)).await.unwrap();
            let again = client.execute("return Math.random()").seed(7).await.unwrap();
            assert_eq!(outcome.value::<f64>().unwrap(), again.value::<f64>().unwrap());
            let mutations = outcome.segments[0].state_mutations().unwrap();
            assert!(format!("{mutations:?}").contains("\"n\""), "{mutations:?}");
            let error = client.run("$emit('e', 1)").grant("events:emit:e").limits(Limits::new().max_events(0)).await;
            assert_eq!(error.unwrap_err().code(), ErrorCode::ResourceLimit);
        });
    });
}

#[test]
fn a_request_is_sent_when_it_is_started_and_not_before() {
    watched(|| {
        let client = client();
        let before = client.stats().wait().unwrap().total_executions;
        let request = client.execute("return 1");
        drop(client.run("return 2"));
        assert_eq!(client.stats().wait().unwrap().total_executions, before);
        let call = request.into_future();
        eventually("it ran", || client.stats().wait().unwrap().total_executions == before + 1);
        assert_eq!(call.wait().unwrap().value::<u32>().unwrap(), 1);
    });
}

fn pieces(mut running: Running) -> Vec<String> {
    let text = |Log { level, message, .. }: Log| format!("{level} {message}");
    let segment = |segment: Segment| format!("segment {}", segment.seq);
    let mut pieces = Vec::new();
    while let Some(piece) = running.next_blocking() {
        pieces.push(match piece {
            Ok(Progress::Log(log)) => text(log),
            Ok(Progress::Segment(one)) => segment(*one),
            Ok(Progress::Done(outcome)) => format!("done {}", outcome.value::<u32>().unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => error.code().to_string(),
        });
    }
    assert!(running.next_blocking().is_none(), "nothing comes behind the end");
    pieces
}

#[test]
fn a_run_is_a_stream_of_what_it_does_in_order() {
    watched(|| {
        let client = client();
        let extensions = Extensions::new().async_method("x", "y", |_| async { Ok(()) });
        let code = "$log('a'); $log.warn('b'); await $ext.x.y(); $log('c'); return 5";
        let running = client.run(code).extensions(extensions.clone()).stream();
        assert_eq!(pieces(running), ["info a", "warn b", "segment 0", "info c", "segment 1", "done 5"]);
        let running = client.run("$log('a'); await $ext.x.y(); null.x").extensions(extensions).stream();
        assert_eq!(pieces(running), ["info a", "segment 0", "segment 1", "EXECUTION_ERROR"]);
    });
}

#[test]
fn a_segment_is_there_while_the_call_that_ended_it_is_at_work() {
    watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let client = Client::spawn(options()).await.unwrap();
            let token = CancelToken::new();
            let wait = token.clone();
            let extensions = Extensions::new().async_method("x", "y", move |_| {
                let cancelled = wait.cancelled();
                async move {
                    cancelled.await;
                    Ok(())
                }
            });
            let mut running = client.run("await $ext.x.y(); return 1").extensions(extensions).stream();
            let mut next = async || poll_fn(|context| Pin::new(&mut running).poll_next(context)).await;
            assert!(matches!(next().await, Some(Ok(Progress::Segment(_)))));
            token.cancel();
            assert!(matches!(next().await, Some(Ok(Progress::Segment(_)))));
            assert!(matches!(next().await, Some(Ok(Progress::Done(_)))));
            assert!(next().await.is_none());
        });
    });
}

/// An extension that tells what it is called with, and does not answer before its token is cancelled.
fn listening() -> (Extensions, mpsc::Receiver<CurrentCall>) {
    let (tell, told) = mpsc::channel();
    let extensions = Extensions::new().method("jobs", "wait", move |args| {
        let call = args.call();
        tell.send(call.clone()).unwrap();
        while !call.token().is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    (extensions, told)
}

const WAIT: &str = "await $ext.jobs.wait()";

#[test]
fn an_extension_knows_whose_call_it_answers() {
    watched(|| {
        let client = client();
        let (tell, told) = mpsc::channel();
        let extensions = Extensions::new().async_method("x", "y", move |args| {
            tell.send(args.call().clone()).unwrap();
            async { Ok(()) }
        });
        let request = client.run("await $ext.x.y()").extensions(extensions).label("tenant", "acme");
        let started = Instant::now();
        request.handler_name("h").panel_id("p").wait().unwrap();
        let call = told.recv().unwrap();
        assert_eq!((call.extension(), call.method(), call.suspension_id().is_empty()), ("x", "y", false));
        assert_eq!((call.handler_name(), call.panel_id()), (Some("h"), Some("p")));
        assert_eq!((call.label("tenant"), call.label("other"), call.labels().len()), (Some("acme"), None, 1));
        let time = Duration::from_millis(client.limits().suspension_timeout_ms);
        assert!(call.deadline().unwrap() >= started + time);
        assert!(!call.token().is_cancelled(), "it was answered");
    });
}

#[test]
fn an_extension_hears_that_its_run_was_cancelled_or_dropped() {
    watched(|| {
        let client = client();
        let token = CancelToken::new();
        let (extensions, told) = listening();
        let run = client.run(WAIT).extensions(extensions.clone()).cancel(&token).start();
        let run = std::thread::spawn(move || run.wait());
        let call = told.recv().unwrap();
        assert!(!call.token().is_cancelled());
        token.cancel();
        assert_eq!(run.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
        assert!(call.token().is_cancelled());
        let mut run = client.run(WAIT).extensions(extensions).start();
        let call = loop {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(matches!(Pin::new(&mut run).poll(&mut context), Poll::Pending));
            if let Ok(call) = told.try_recv() {
                break call;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(!call.token().is_cancelled());
        drop(run);
        assert!(call.token().is_cancelled());
    });
}

#[test]
fn an_extension_hears_that_it_is_late_or_that_its_run_is_over() {
    watched(|| {
        let client = Client::spawn(options().suspension_timeout_ms(100)).wait().unwrap();
        let (extensions, told) = listening();
        let code = format!("try {{ {WAIT} }} catch (error) {{ return error.code }}");
        let outcome = client.run(code).extensions(extensions.clone()).wait().unwrap();
        assert_eq!(outcome.value::<String>().unwrap(), "TIMEOUT");
        assert!(told.recv().unwrap().token().is_cancelled());
        let client = support::client();
        let extensions = extensions.async_method("x", "fail", |_| async { Err::<(), _>(CallError::new("no")) });
        let error = client.run("await Promise.all([$ext.jobs.wait(), $ext.x.fail()])").extensions(extensions);
        assert_eq!(error.wait().unwrap_err().code(), ErrorCode::ExecutionError);
        let call = told.recv().unwrap();
        eventually("it is told", || call.token().is_cancelled());
    });
}
