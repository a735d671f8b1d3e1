//! More calls at once than the sidecar takes.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexus_client::{Client, ClientOptions, Context, Error, ErrorCode, Extensions};
use support::{eventually, options, watched};

fn pressed() -> Client {
    Client::spawn(options().max_instances(2).max_queued(2000).max_queue_ms(50_000).timeout_ms(50_000)).wait().unwrap()
}

fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)).count()
}

#[test]
fn ten_thousand_calls_at_once_all_come_back_and_figures_do_not_wait_behind_them() {
    watched(|| {
        let client = pressed();
        let calls: Vec<_> = (0..10_000u32).map(|n| client.execute("return $args + 1").args(&n).start()).collect();
        client.ping().wait().unwrap();
        let stats = client.stats().wait().unwrap();
        assert!(stats.queued < 1024, "{} are queued", stats.queued);
        for (n, call) in calls.into_iter().enumerate() {
            let segment = call.wait().unwrap().into_result().unwrap();
            assert_eq!(segment.value::<usize>().unwrap(), n + 1);
        }
        assert_eq!(client.stats().wait().unwrap().total_executions, 10_000);
        eventually("the writer has ended", || threads_named("nexus-writer") == 0);
    });
}

#[test]
fn calls_that_wait_in_the_client_are_never_sent_once_they_are_dropped() {
    watched(|| {
        let client = pressed();
        let calls: Vec<_> = (0..3000).map(|_| client.execute("for (;;);").start()).collect();
        eventually("some run", || client.stats().wait().unwrap().active_instances == 2);
        drop(calls);
        eventually("nothing is left", || {
            let stats = client.stats().wait().unwrap();
            stats.active_instances + stats.queued + stats.suspended_instances == 0
        });
        let segment = client.execute("return 7").wait().unwrap();
        assert_eq!(segment.value::<u32>().unwrap(), 7);
    });
}

#[test]
fn a_resume_that_waits_in_the_client_ends_its_execution_when_it_is_dropped() {
    watched(|| {
        let client = pressed();
        let suspended = client.execute("await $ext.x.y()").grant("ext:x").wait().unwrap();
        let busy: Vec<_> = (0..1500).map(|_| client.execute("for (;;);").start()).collect();
        let failure = nexus_client::Resolution::Failure(nexus_client::CallError::new("late"));
        drop(client.resume(&suspended.suspensions[0].id, failure));
        eventually("it has ended", || client.stats().wait().unwrap().suspended_instances == 0);
        drop(busy);
    });
}

#[test]
fn calls_that_wait_in_the_client_fail_with_the_sidecar() {
    watched(|| {
        let client = pressed();
        let calls: Vec<_> = (0..3000).map(|_| client.execute("for (;;);").start()).collect();
        eventually("some run", || client.stats().wait().unwrap().active_instances == 2);
        drop(client);
        for call in calls {
            assert_eq!(call.wait().unwrap_err().code(), ErrorCode::SidecarGone);
        }
    });
}

#[test]
fn a_run_that_waits_in_the_client_is_cancelled_by_its_token_alone() {
    watched(|| {
        let client = pressed();
        let busy: Vec<_> = (0..1500).map(|_| client.execute("for (;;);").start()).collect();
        let token = nexus_client::CancelToken::new();
        let run = client.run("return 1").extensions(Extensions::new()).cancel(&token).start();
        token.cancel();
        assert!(matches!(run.wait().unwrap_err(), Error::Cancelled));
        drop(busy);
    });
}

fn echoes() -> (Context, Extensions) {
    let extensions = Extensions::new().method("a", "b", |args| args.get::<u32>(0));
    (Context::new().grant("ext:a"), extensions)
}

#[test]
fn ten_thousand_runs_with_a_call_each_at_once_all_come_back_by_default_settings() {
    watched(|| {
        let client = Client::spawn(options()).wait().unwrap();
        let (context, extensions) = echoes();
        let run = |n: u32| {
            client
                .run("return 1 + await $ext.a.b($args)")
                .context(&context.clone().args(&n))
                .extensions(extensions.clone())
                .start()
        };
        let runs: Vec<_> = (0..10_000).map(run).collect();
        for (n, run) in runs.into_iter().enumerate() {
            assert_eq!(run.wait().unwrap().value::<usize>().unwrap(), n + 1);
        }
    });
}

#[test]
fn runs_that_are_waited_for_in_another_order_end_when_the_suspensions_before_them_have() {
    watched(|| {
        let client = Client::spawn(options().max_suspended(2).suspension_timeout_ms(300)).wait().unwrap();
        let (context, extensions) = echoes();
        let run = |n: u32| {
            client
                .run("return await $ext.a.b($args)")
                .context(&context.clone().args(&n))
                .extensions(extensions.clone())
                .start()
        };
        let mut runs: Vec<_> = (0..4).map(run).collect();
        let last = runs.pop().unwrap();
        assert_eq!(last.wait().unwrap().value::<u32>().unwrap(), 3);
        let first = runs.swap_remove(0).wait().unwrap_err();
        assert_eq!(first.code(), ErrorCode::SuspensionError, "nobody looked after it");
    });
}

#[test]
fn runs_that_are_dropped_while_they_wait_for_a_place_or_hold_one_leave_it() {
    watched(|| {
        let client = Client::spawn(options().max_suspended(2)).wait().unwrap();
        let (context, extensions) = echoes();
        let run = |extensions: &Extensions| {
            client.run("return await $ext.a.b(7)").context(&context).extensions(extensions.clone()).start()
        };
        for _ in 0..200 {
            let runs: Vec<_> = (0..8).map(|_| run(&extensions)).collect();
            drop(runs);
            assert_eq!(run(&extensions).wait().unwrap().value::<u32>().unwrap(), 7);
        }
        eventually("nothing is left", || client.stats().wait().unwrap().suspended_instances == 0);
    });
}

/// As many requests of a client as it sends before it knows how long they take.
const FIRST: usize = 32;

/// A client, and calls that take all that it has with its sidecar at once.
fn full(options: ClientOptions) -> (Client, Vec<nexus_client::Call<nexus_client::Segment>>) {
    let spawn = support::options().max_instances(1).max_queued(2000).max_queue_ms(50_000).timeout_ms(50_000);
    let client = Client::spawn(spawn.client(options)).wait().unwrap();
    let busy = (0..FIRST).map(|_| client.execute("for (;;);").start()).collect();
    (client, busy)
}

fn refused(call: nexus_client::Call<nexus_client::Segment>) -> (&'static str, usize) {
    match call.wait().unwrap_err() {
        error @ Error::Overloaded { resource, limit, .. } => {
            assert_eq!((error.code(), error.retryable()), (ErrorCode::Overloaded, true));
            (resource, limit)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn as_many_calls_wait_in_the_client_as_the_option_says() {
    watched(|| {
        let (client, busy) = full(ClientOptions::new().max_waiting_requests(3));
        let one = || client.execute("return 1").start();
        let waiting: Vec<_> = (0..3).map(|_| one()).collect();
        assert_eq!(refused(one()), ("waitingRequests", 3));
        client.ping().wait().unwrap();
        drop(busy);
        for call in waiting {
            assert_eq!(call.wait().unwrap().value::<u32>().unwrap(), 1);
        }
        assert_eq!(one().wait().unwrap().value::<u32>().unwrap(), 1, "there is room again");
    });
}

#[test]
fn as_many_bytes_wait_in_the_client_as_the_option_says_and_one_call_always_may() {
    watched(|| {
        let (client, busy) = full(ClientOptions::new().max_waiting_bytes(10_000).shared_memory(false));
        let with = |bytes| client.execute("return $args.length").args(&"x".repeat(bytes)).start();
        let large = with(1 << 20);
        assert_eq!(refused(with(10)), ("waitingBytes", 10_000));
        drop(busy);
        assert_eq!(large.wait().unwrap().value::<u32>().unwrap(), 1 << 20);
    });
}

#[test]
fn as_many_functions_block_at_the_same_time_as_the_option_says() {
    watched(|| {
        let client = Client::spawn(options().client(ClientOptions::new().max_blocking_calls(2))).wait().unwrap();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        let extensions = Extensions::new().method("a", "b", move |args| {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            now.fetch_sub(1, Ordering::SeqCst);
            args.get::<u32>(0)
        });
        let source = "return await Promise.all(Array.from({length: 20}, (_, i) => $ext.a.b(i)))";
        let run = client.run(source).grant("ext:a").extensions(extensions).start();
        assert_eq!(run.wait().unwrap().value::<Vec<u32>>().unwrap(), (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 2);
    });
}
