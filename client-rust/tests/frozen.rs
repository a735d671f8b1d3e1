//! A sidecar that stands still, and an executor with one thread: whatever a program asks of the client meanwhile, its other
//! tasks go on.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexus_client::{CancelToken, Client, Context, ErrorCode, Extensions, Payload, SpawnOptions};
use support::{eventually, options, scratch, watched_for};
use tokio::time::{sleep, timeout};

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

/// Runs a program on an executor with one thread, beside a task that ticks there and a thread that does so on its own: where
/// the machine is busy both are late, where the executor is blocked only the task is.
fn ticking(program: impl Future<Output = ()>) {
    let [task, control] = [(); 2].map(|()| Arc::new(Turns::default()));
    let controls = Arc::clone(&control);
    let thread = std::thread::spawn(move || {
        let mut before = Instant::now();
        while controls.took(&mut before) {
            std::thread::sleep(TURN);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let ticks = Arc::clone(&task);
        let ticker = tokio::spawn(async move {
            let mut before = Instant::now();
            while ticks.took(&mut before) {
                sleep(TURN).await;
            }
        });
        program.await;
        task.over.store(true, Ordering::Relaxed);
        ticker.await.unwrap();
    });
    control.over.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let (longest, allowed) = (task.longest(), Duration::from_millis(1_500).max(10 * control.longest()));
    assert!(
        longest <= allowed,
        "the executor stood still for {longest:?}; a thread beside it for {:?}",
        control.longest()
    );
}

fn large() -> Context {
    Context::new().args_payload(Payload::encode(&"x".repeat(LARGE)).unwrap())
}

#[test]
fn requests_that_are_made_awaited_dropped_and_cancelled_block_nobody() {
    watched_for(LIMIT, || {
        let context = large();
        ticking(async {
            let client = Client::spawn(options()).await.unwrap();
            let frozen = Frozen::new(&client);
            let mut kept = Vec::new();
            for _ in 0..3 {
                assert!(timeout(SHORT, client.execute("return 1").context(&context).start()).await.is_err());
                drop(client.execute("return 2").context(&context).start());
                kept.push(client.execute("return $args.length").context(&context).start());
                let token = CancelToken::new();
                let run = client.run("return 4").context(&context).cancel(&token).start();
                token.cancel();
                let _ = timeout(SHORT, run).await;
                let state = client.create_state(&serde_json::json!({ "text": "x".repeat(LARGE) }));
                assert!(timeout(SHORT, state).await.is_err());
                assert!(timeout(SHORT, client.ping()).await.is_err());
                assert!(timeout(SHORT, client.stats()).await.is_err());
            }
            drop(frozen);
            for call in kept {
                assert_eq!(call.await.unwrap().value::<usize>().unwrap(), LARGE);
            }
            client.ping().await.unwrap();
        });
    });
}

#[test]
fn runs_that_are_suspended_and_states_that_are_let_go_block_nobody() {
    watched_for(LIMIT, || {
        ticking(async {
            let client = Client::spawn(options()).await.unwrap();
            let state = client.create_state(&serde_json::json!({ "n": 1 })).await.unwrap();
            let extensions = Extensions::new().async_method("x", "big", |_| async {
                sleep(SHORT).await;
                Ok("x".repeat(LARGE))
            });
            let run = client.run("return (await $ext.x.big()).length").extensions(extensions).start();
            let mut run = tokio::spawn(run);
            while client.stats().await.unwrap().suspended_instances == 0 {
                sleep(TURN).await;
            }
            let frozen = Frozen::new(&client);
            assert!(timeout(3 * SHORT, &mut run).await.is_err());
            drop(state);
            drop(frozen);
            assert_eq!(run.await.unwrap().unwrap().value::<usize>().unwrap(), LARGE);
        });
    });
}

#[test]
fn a_client_that_starts_ends_or_is_dropped_blocks_nobody() {
    watched_for(LIMIT, || {
        let silent = scratch("silent").join("sidecar");
        std::fs::write(&silent, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        std::fs::set_permissions(&silent, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut pids = Vec::new();
        ticking(async {
            let start = Client::spawn(SpawnOptions::new().binary(&silent));
            assert!(timeout(SHORT, start).await.is_err());
            drop(Client::spawn(SpawnOptions::new().binary(&silent)));
            for large in [false, true] {
                let client = Client::spawn(options()).await.unwrap();
                pids.push(client.child_pid().unwrap());
                // It stays frozen: the client has to end it.
                std::mem::forget(Frozen::new(&client));
                let call = large.then(|| client.execute("return 1").context(&self::large()).start());
                assert!(timeout(SHORT, client.shutdown()).await.is_err());
                drop(client);
                if let Some(call) = call {
                    assert_eq!(call.await.unwrap_err().code(), ErrorCode::SidecarGone);
                }
            }
        });
        for pid in pids {
            eventually("it is reaped", || state_of(pid).is_none());
        }
    });
}
