//! A sidecar that stands still, and an executor with one thread, tokio's, smol's or none but a loop: whatever a program asks of the
//! client meanwhile, its other tasks go on.

mod support;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use nexus_client::{
    Call, CancelTarget, CancelToken, Client, ClientOptions, Context, Error, ErrorCode, Extensions, Payload, Resolution,
    SpawnOptions,
};
use support::{eventually, options, scratch, watched_for};

const LIMIT: Duration = Duration::from_secs(200);
/// What a test waits for an answer that does not come.
const SHORT: Duration = Duration::from_millis(50);
const LARGE: usize = 8 << 20;

/// A process that stands still until this is dropped.
struct Frozen(u32);

impl Frozen {
    fn new(client: &Client) -> Self {
        let pid = client.child_pid().unwrap();
        signal(pid, "-STOP");
        eventually("it stands still", || state_of(pid) == Some('T'));
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The longest time between two turns of something that wants one every few milliseconds.
#[derive(Default)]
struct Turns {
    longest_us: AtomicU64,
    over: AtomicBool,
}

const TURN: Duration = Duration::from_millis(5);

impl Turns {
    fn took(&self, before: &mut Instant) -> bool {
        let gap = u64::try_from(before.elapsed().as_micros()).unwrap();
        *before = Instant::now();
        self.longest_us.fetch_max(gap, Ordering::Relaxed);
        !self.over.load(Ordering::Relaxed)
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}

type Program = Pin<Box<dyn Future<Output = ()>>>;

/// What runs futures on one thread.
#[derive(Clone, Copy)]
struct Executor {
    block_on: fn(Program),
    sleep: fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

const TOKIO: Executor = Executor {
    block_on: |program| tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(program),
    sleep: |time| Box::pin(async move { tokio::time::sleep(time).await }),
};

const SMOL: Executor = Executor {
    block_on: |program| smol::block_on(smol::LocalExecutor::new().run(program)),
    sleep: |time| {
        Box::pin(async move {
            smol::Timer::after(time).await;
        })
    },
};

/// No runtime: a thread that polls when it is woken, and one for each time that is waited for.
const NONE: Executor = Executor {
    block_on: |mut program| {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        while program.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending() {
            std::thread::park();
        }
    },
    sleep: |time| {
        let over = Instant::now() + time;
        let waits = Arc::<Mutex<Option<Waker>>>::default();
        let waker = Arc::clone(&waits);
        std::thread::spawn(move || {
            std::thread::sleep(over.saturating_duration_since(Instant::now()));
            waker.lock().unwrap().take().map(Waker::wake)
        });
        Box::pin(poll_fn(move |context| {
            let mut waits = waits.lock().unwrap();
            *waits = Some(context.waker().clone());
            if Instant::now() < over { Poll::Pending } else { Poll::Ready(()) }
        }))
    },
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Executor {
    async fn sleep(self, time: Duration) {
        (self.sleep)(time).await;
    }

    /// What comes of it within this time.
    async fn timeout<T>(self, time: Duration, work: impl IntoFuture<Output = T>) -> Option<T> {
        let (mut work, mut sleep) = (pin!(work.into_future()), (self.sleep)(time));
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
        })
        .await
    }

    /// Runs a program, beside something that ticks on the same thread and a thread that does so on its own: where the machine is busy
    /// both are late, where the executor is blocked only the former is.
    fn ticking(self, program: impl Future<Output = ()> + 'static) {
        let [beside, control] = [(); 2].map(|()| Arc::new(Turns::default()));
        let controls = Arc::clone(&control);
        let thread = std::thread::spawn(move || {
            let mut before = Instant::now();
            while controls.took(&mut before) {
                std::thread::sleep(TURN);
            }
        });
        let ticks = Arc::clone(&beside);
        (self.block_on)(Box::pin(async move {
            let mut ticker = pin!(async {
                let mut before = Instant::now();
                while ticks.took(&mut before) {
                    self.sleep(TURN).await;
                }
            });
            let mut program = pin!(program);
            poll_fn(|context| {
                assert!(ticker.as_mut().poll(context).is_pending());
                program.as_mut().poll(context)
            })
            .await;
        }));
        control.over.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        let (longest, allowed) = (beside.longest(), Duration::from_millis(1_500).max(10 * control.longest()));
        assert!(
            longest <= allowed,
            "the executor stood still for {longest:?}; a thread beside it for {:?}",
            control.longest()
        );
    }
}

fn large() -> Context {
    Context::new().args_payload(Payload::encode(&"x".repeat(LARGE)).unwrap())
}

/// Each of these on each executor.
macro_rules! on_each_executor {
    ($($name:ident)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn on_tokio() {
                watched_for(LIMIT, || super::$name(TOKIO));
            }

            #[test]
            fn on_smol() {
                watched_for(LIMIT, || super::$name(SMOL));
            }

            #[test]
            fn without_a_runtime() {
                watched_for(LIMIT, || super::$name(NONE));
            }
        })*
    };
}

on_each_executor! {
    requests_that_are_made_awaited_dropped_and_cancelled_block_nobody
    runs_that_are_suspended_and_states_that_are_let_go_block_nobody
    a_client_that_starts_ends_or_is_dropped_blocks_nobody
}

fn requests_that_are_made_awaited_dropped_and_cancelled_block_nobody(on: Executor) {
    let context = large();
    on.ticking(async move {
        let client = Client::spawn(options()).await.unwrap();
        let frozen = Frozen::new(&client);
        let mut kept = Vec::new();
        for _ in 0..3 {
            assert!(on.timeout(SHORT, client.execute("return 1").context(&context)).await.is_none());
            drop(client.execute("return 2").context(&context).start());
            kept.push(client.execute("return $args.length").context(&context).start());
            let token = CancelToken::new();
            let run = client.run("return 4").context(&context).on_log(|_| ()).cancel(&token).start();
            token.cancel();
            let _ = on.timeout(SHORT, run).await;
            drop(client.run("return 5").context(&context).stream());
            assert!(on.timeout(SHORT, client.run_many("return 6", [context.clone(), Context::new()])).await.is_none());
            drop(client.execute_many("return 7", [context.clone()]));
            let state = client.create_state(&serde_json::json!({ "text": "x".repeat(LARGE) }));
            assert!(on.timeout(SHORT, state).await.is_none());
            assert!(on.timeout(SHORT, client.precompile("return 8")).await.is_none());
            assert!(on.timeout(SHORT, client.ping()).await.is_none());
            assert!(on.timeout(SHORT, client.stats()).await.is_none());
        }
        drop(frozen);
        for call in kept {
            assert_eq!(call.await.unwrap().value::<usize>().unwrap(), LARGE);
        }
        client.ping().await.unwrap();
    });
}

#[test]
fn what_waits_for_a_sidecar_that_does_not_read_is_bounded() {
    watched_for(LIMIT, || {
        let bounds = ClientOptions::new().max_waiting_requests(100).max_waiting_bytes(3 * LARGE);
        let client = Client::spawn(options().client(bounds)).wait().unwrap();
        let most = 100 + client.limits().max_in_flight as usize;
        let context = large();
        let frozen = Frozen::new(&client);
        let refused = |error: Error| matches!(error, Error::Overloaded { .. });
        let calls: Vec<_> = (0..10).map(|_| client.execute("return $args.length").context(&context).start()).collect();
        let pings: Vec<_> = (0..2 * most).map(|_| client.ping()).collect();
        drop(frozen);
        let sent = calls.into_iter().map(Call::wait).filter_map(Result::ok).count();
        assert!((1..=4).contains(&sent), "{sent}");
        let answers: Vec<_> = pings.into_iter().map(Call::wait).collect();
        let answered = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((1..=most).contains(&answered), "{answered}");
        assert!(answers.into_iter().filter_map(Result::err).all(refused));
        client.ping().wait().unwrap();
    });
}

fn runs_that_are_suspended_and_states_that_are_let_go_block_nobody(on: Executor) {
    on.ticking(async move {
        let client = Client::spawn(options()).await.unwrap();
        let state = client.create_state(&serde_json::json!({ "n": 1 })).await.unwrap();
        let extensions = Extensions::new().async_method("x", "big", move |_| async move {
            on.sleep(SHORT).await;
            Ok("x".repeat(LARGE))
        });
        let mut run = client.run("return (await $ext.x.big()).length").extensions(extensions).start();
        let calling = Context::new().grant("ext:x");
        let calls = [(); 2].map(|()| client.execute("return await $ext.x.y()").context(&calling).start());
        let mut suspended = Vec::new();
        for call in calls {
            suspended.push(call.await.unwrap().suspension().unwrap().id.clone());
        }
        let [resumed, cancelled] = <[String; 2]>::try_from(suspended).unwrap();
        while client.stats().await.unwrap().suspended_instances < 3 {
            on.sleep(TURN).await;
        }
        let frozen = Frozen::new(&client);
        assert!(on.timeout(3 * SHORT, &mut run).await.is_none());
        let large = Payload::encode(&"x".repeat(LARGE)).unwrap();
        let resumed = client.resume(&resumed, Resolution::Value(large));
        assert!(on.timeout(SHORT, client.cancel(&CancelTarget::Suspension(cancelled))).await.is_none());
        drop(state);
        drop(frozen);
        assert_eq!(run.await.unwrap().value::<usize>().unwrap(), LARGE);
        assert_eq!(resumed.await.unwrap().value::<String>().unwrap().len(), LARGE);
    });
}

fn a_client_that_starts_ends_or_is_dropped_blocks_nobody(on: Executor) {
    let silent = scratch("silent").join("sidecar");
    // By a process of its own: a child that another test starts meanwhile would hold the file open, and nobody could execute it.
    let write = r#"printf '#!/bin/sh\nexec sleep 1000\n' > "$0" && chmod 700 "$0""#;
    assert!(Command::new("sh").args(["-c", write]).arg(&silent).status().unwrap().success());
    let pids = Arc::<Mutex<Vec<u32>>>::default();
    let noted = Arc::clone(&pids);
    on.ticking(async move {
        let start = Client::spawn(SpawnOptions::new().binary(&silent));
        assert!(on.timeout(SHORT, start).await.is_none());
        drop(Client::spawn(SpawnOptions::new().binary(&silent)));
        for large in [false, true] {
            let client = Client::spawn(options()).await.unwrap();
            noted.lock().unwrap().push(client.child_pid().unwrap());
            // It stays frozen: the client has to end it.
            std::mem::forget(Frozen::new(&client));
            let call = large.then(|| client.execute("return 1").context(&self::large()).start());
            assert!(on.timeout(SHORT, client.shutdown()).await.is_none());
            drop(client);
            if let Some(call) = call {
                assert_eq!(call.await.unwrap_err().code(), ErrorCode::SidecarGone);
            }
        }
    });
    for pid in pids.lock().unwrap().iter() {
        eventually("it is reaped", || state_of(*pid).is_none());
    }
}
