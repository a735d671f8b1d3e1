//! What takes long for one client is waited for by nobody else: lists, metrics, the ends of connections, and work that no guest
//! does. And whoever does such work may break: then the process ends, and does not go on without.
//!
//! The faults are planned (`sidecar/src/faults.rs`), everything else is real. What is slow is made to last until the end of the
//! test, so that no machine is too fast or too busy to see the difference.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nexus_protocol::limits::PROCESS_GRACE_MS;
use nexus_protocol::message::{CreateState, Regions};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::process::write_plan;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

/// The exit code of a process that gives up.
const STUCK: i32 = 71;

/// A sidecar whose plan of faults changes while it runs.
struct Stage {
    sidecar: Sidecar,
    plan: PathBuf,
    changes: u32,
    _dir: TempDir,
    _watchdog: Watchdog,
}

impl Stage {
    fn new(options: &Options) -> Self {
        let (watchdog, dir) = (Watchdog::seconds(150), TempDir::new());
        let plan = dir.join("plan");
        write_plan(&plan, "");
        let sidecar = options.clone().faults(&format!("file={}", plan.display())).listen();
        Self { sidecar, plan, changes: 0, _dir: dir, _watchdog: watchdog }
    }

    fn plan(&mut self, plan: &str) {
        self.changes += 1;
        write_plan(&self.plan, &format!("#{},{plan}", self.changes));
    }

    fn happened(&self, what: &str) -> bool {
        self.sidecar.stderr().contains(&format!("NEXUS_FAULTS: {what}"))
    }

    /// From now on the housekeeper is at one thing for long: not so long that it counts as stuck.
    fn occupy_housekeeper(&mut self) {
        let wait = PROCESS_GRACE_MS / 2;
        self.plan(&format!("housework:sleep={wait}@1"));
        let mut client = self.sidecar.connect();
        client.send(&ClientMessage::Metrics);
        eventually("the housekeeper is at work", SOON, || self.happened("housework"));
    }
}

fn options() -> Options {
    Options::new().flag("max-instances", 2)
}

/// Everything that the thread that has the connections answers itself.
fn is_heard(client: &mut Client) {
    client.ping();
    client.stats();
    client.still_works();
    assert!(!client.cancel_request(4_000_000));
    assert!(!client.kill(u64::MAX));
}

#[test]
fn lists_and_metrics_hold_nobody_up() {
    let mut stage = Stage::new(&options());
    let (mut operator, mut other) = (stage.sidecar.connect(), stage.sidecar.connect());
    stage.occupy_housekeeper();
    let asked = [ClientMessage::Executions, ClientMessage::Metrics].map(|message| operator.send(&message));
    for _ in 0..20 {
        is_heard(&mut other);
        is_heard(&mut operator);
    }
    assert!(operator.early_replies().is_empty(), "they were not written where they were read");
    assert!(matches!(operator.wait(asked[0]), Answer::Executions(_)));
    assert!(matches!(operator.wait(asked[1]), Answer::Metrics(_)));
}

// shows P-pending-lists
#[test]
fn more_lists_than_anybody_reads_are_refused() {
    let mut stage = Stage::new(&options());
    let mut operator = stage.sidecar.connect();
    stage.occupy_housekeeper();
    let asked: Vec<u32> = (0..100).map(|_| operator.send(&ClientMessage::Executions)).collect();
    operator.ping();
    let (mut listed, mut refused) = (0, 0);
    for id in asked {
        match operator.wait(id) {
            Answer::Executions(_) => listed += 1,
            Answer::Error(error) if error.code == ErrorCode::Overloaded => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((listed, refused), (nexus_protocol::limits::MAX_PENDING_LISTS, 100 - listed));
    operator.executions();
}

#[test]
fn the_end_of_a_connection_with_much_holds_nobody_up() {
    let mut stage = Stage::new(&options());
    let (mut owner, mut other) = (stage.sidecar.connect(), stage.sidecar.connect());
    owner.create_state(&json!({"large": "x".repeat(1 << 20)}));
    let suspended: Vec<String> = (0..20)
        .map(|_| owner.run(Run::source("return await $ext.a.b()").grant(&["ext:*"])).call().id.clone())
        .collect();
    stage.occupy_housekeeper();
    assert!(owner.cancel_suspension(&suspended[0]));
    drop(owner);
    for _ in 0..20 {
        is_heard(&mut other);
    }
    let held = other.stats();
    assert!(held.resident_states == 1 && held.suspended_instances >= 18, "it was freed where it was read: {held:?}");
    eventually("all of it is freed", SOON, || {
        let now = other.stats();
        (now.resident_states, now.resident_state_bytes, now.suspended_instances) == (0, 0, 0)
    });
    // instances that are sound serve others
    let before = other.stats();
    (0..10).for_each(|_| other.still_works());
    assert_eq!(other.stats().instances_created, before.instances_created);
}

#[test]
fn after_a_pause_a_ping_beside_work_of_the_host_is_heard_as_soon_as_without_one() {
    let mut stage = Stage::new(&options());
    let (mut owner, mut other) = (stage.sidecar.connect(), stage.sidecar.connect());
    let create = ClientMessage::CreateState(CreateState { state: Some(&[0x80]), regions: Regions::NONE });
    let mut ping_beside = |stage: &mut Stage, pause: Duration| {
        stage.plan("worker:sleep=2000@1");
        std::thread::sleep(pause);
        let asked = owner.send(&create);
        eventually("it is worked on", SOON, || {
            stage.sidecar.stderr().matches("worker does").count() as u32 == stage.changes
        });
        let started = Instant::now();
        other.ping();
        let took = started.elapsed();
        assert!(matches!(owner.wait(asked), Answer::StateCreated { .. }));
        took
    };
    let (mut after_pause, mut without): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        without.push(ping_beside(&mut stage, Duration::ZERO));
        // longer than the watchdog looks about after the last run
        after_pause.push(ping_beside(&mut stage, Duration::from_millis(700)));
    }
    after_pause.sort_unstable();
    without.sort_unstable();
    let (after_pause, without) = (after_pause[3], without[3]);
    assert!(
        after_pause < without * 10 + Duration::from_millis(100),
        "{after_pause:?}, and {without:?} without a pause"
    );
}

#[test]
fn a_housekeeper_that_panics_ends_the_process() {
    let mut stage = Stage::new(&options());
    let mut client = stage.sidecar.connect();
    stage.plan("housework:panic@1");
    client.send(&ClientMessage::Executions);
    assert_eq!(stage.sidecar.exit_code(SOON), STUCK);
    assert!(stage.sidecar.stderr().contains("the housekeeper panicked"), "{}", stage.sidecar.stderr());
    assert!(client.is_closed());
}

#[test]
fn a_housekeeper_that_hangs_ends_the_process() {
    let mut stage = Stage::new(&options());
    let mut client = stage.sidecar.connect();
    stage.plan("housework:hang@1");
    client.send(&ClientMessage::Executions);
    // the watchdog looks once a second when nothing else happens
    assert_eq!(stage.sidecar.exit_code(Duration::from_millis(PROCESS_GRACE_MS) + SOON), STUCK);
    assert!(stage.sidecar.stderr().contains("the housekeeper is stuck"), "{}", stage.sidecar.stderr());
}

#[test]
fn whoever_accepts_connections_and_hangs_ends_the_process() {
    let mut stage = Stage::new(&options());
    stage.plan("accept:hang@1");
    let _waiting = UnixStream::connect(stage.sidecar.path()).unwrap();
    assert_eq!(stage.sidecar.exit_code(Duration::from_millis(PROCESS_GRACE_MS) + SOON), STUCK);
    assert!(
        stage.sidecar.stderr().contains("the thread that has the connections is stuck"),
        "{}",
        stage.sidecar.stderr()
    );
}

#[test]
fn books_that_a_thread_has_left_in_disorder_end_the_process() {
    for passage in 1..=4 {
        let mut stage = Stage::new(&options());
        let mut client = stage.sidecar.connect();
        client.still_works();
        stage.plan(&format!("books:panic@{passage}"));
        client.start("return 1");
        assert_eq!(stage.sidecar.exit_code(SOON), STUCK);
        assert!(stage.sidecar.stderr().contains("the books of the server are broken"), "{}", stage.sidecar.stderr());
    }
}
