//! Wakers are a caller's code: one that panics harms its own task alone.

mod support;

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};

use nexus_client::{Call, CallError, CancelToken, Client, Context, ErrorCode, Extensions, RestartPolicy};
use support::{eventually, options, watched};

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("expected by the test");
    }
}

/// Polls once, with a waker that panics.
fn arm<T>(call: &mut Call<T>) {
    let waker = Waker::from(Arc::new(Bomb));
    let polled = Pin::new(call).poll(&mut TaskContext::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending), "it was answered before anybody could wait");
}

#[test]
fn a_waker_that_panics_ends_neither_other_calls_nor_its_own_answer() {
    watched(|| {
        let client = Client::spawn(options().max_instances(1)).wait().unwrap();
        for n in 0..20 {
            // takes the only instance, so that nothing is answered before somebody waits for it
            let before = client.execute("for (;;);").start();
            let mut armed = client.execute("return $args").args(&n).start();
            arm(&mut armed);
            let others: Vec<_> = (0..4).map(|n| client.execute("return $args").args(&n).start()).collect();
            drop(before);
            for (n, other) in others.into_iter().enumerate() {
                assert_eq!(other.wait().unwrap().value::<usize>().unwrap(), n);
            }
            assert_eq!(armed.wait().unwrap().value::<u32>().unwrap(), n);
        }
    });
}

#[test]
fn wakers_that_panic_at_the_end_of_a_connection_keep_nobody_from_hearing_of_it() {
    watched(|| {
        let client = Client::spawn(options().restart(RestartPolicy::never()).timeout_ms(50_000)).wait().unwrap();
        let pid = client.child_pid().unwrap();
        let context = Context::new().grant("ext:x");
        let never = || {
            let never = |_| std::future::pending::<Result<(), CallError>>();
            Extensions::new().async_method("x", "never", never)
        };
        let mut calls = Vec::new();
        for _ in 0..10 {
            let mut armed = client.execute("for (;;);").context(&context).start();
            arm(&mut armed);
            calls.push(armed);
            calls.push(client.execute("for (;;);").context(&context).start());
        }
        let mut run = client.run("await $ext.x.never()").context(&context).extensions(never()).start();
        arm(&mut run);
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        for call in calls {
            assert_eq!(call.wait().unwrap_err().code(), ErrorCode::SidecarGone);
        }
        assert_eq!(run.wait().unwrap_err().code(), ErrorCode::SidecarGone);
        drop(client);
        eventually("the child is reaped", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    });
}

#[test]
fn a_waker_that_panics_does_not_keep_a_token_from_the_others() {
    watched(|| {
        let client = Client::spawn(options().timeout_ms(50_000)).wait().unwrap();
        let token = CancelToken::new();
        let run = || client.run("for (;;);").cancel(&token).start();
        let mut armed = run();
        arm(&mut armed);
        let (other, last) = (run(), run());
        let waiting = [other, last].map(|run| std::thread::spawn(move || run.wait()));
        token.cancel();
        for run in waiting {
            assert_eq!(run.join().unwrap().unwrap_err().code(), ErrorCode::Cancelled);
        }
        assert_eq!(armed.wait().unwrap_err().code(), ErrorCode::Cancelled);
        client.ping().wait().unwrap();
    });
}
