//! The kill ladder beyond the loss of memory: a thread that is stuck is given up, then the process. The faults are planned
//! (`sidecar/src/faults.rs`), everything else is real.

use std::time::Duration;

use nexus_protocol::limits::{MAX_RETIRED_PER_CONNECTION, MAX_RETIRED_THREADS, PROCESS_GRACE_MS};
use nexus_protocol::{ContextValue, ErrorCode};
use nexus_tests::leaks::settled_counts;
use nexus_tests::run::BUILTIN;
use nexus_tests::{Answer, Client, Options, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

/// The exit code of a process that gives up.
const STUCK: i32 = 71;
/// Of runs that are to be at their fault before it is over, also on a busy machine.
const AT_ITS_FAULT_MS: u64 = 2_000;

fn start(plan: &str, instances: usize) -> (Watchdog, Sidecar, Client) {
    let watchdog = Watchdog::seconds(90);
    let sidecar = Options::new().patient().faults(plan).flag("max-instances", instances).listen();
    let client = sidecar.connect();
    (watchdog, sidecar, client)
}

fn metric(client: &mut Client, series: &str) -> u64 {
    let text = client.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series}")).parse().expect("a number")
}

/// Runs it until its thread is given up, and says how often: on a busy machine its time may be over before it hangs.
fn given_up(client: &mut Client, run: &Run) -> (Segment, u64) {
    for times in 1..20 {
        let segment = client.run(run.clone().timeout_ms(100));
        assert_eq!(segment.code(), ErrorCode::Timeout);
        if metric(client, "nexus_retired_threads_total") == 1 {
            return (segment, times);
        }
    }
    panic!("it does not hang")
}

/// The one request that is left without an answer would show here.
fn no_answer_is_left(client: &mut Client) {
    client.ping();
    assert!(client.early_replies().is_empty(), "{:?}", client.early_replies());
}

#[test]
fn a_run_that_hangs_in_a_host_call_is_answered_and_its_thread_replaced() {
    let (_w, mut sidecar, mut client) = start("host-call:hang@1", 1);
    let (segment, times) = given_up(&mut client, &Run::source("$log('x'); return 1"));
    let context = |key: &str| segment.error().context.get(key).cloned();
    assert_eq!(context("resource"), Some(ContextValue::Text("timeoutMs".into())));
    assert_eq!(context("limit"), Some(ContextValue::Number(100)));
    assert!(matches!(context("count"), Some(ContextValue::Number(n)) if n >= 100), "{:?}", segment.error());
    // the only instance was with the thread that is gone
    for _ in 0..20 {
        client.still_works();
    }
    assert_eq!(client.run("$log('x'); return 2").value(), 2);
    assert_eq!(metric(&mut client, "nexus_retired_threads"), 1);
    assert_eq!(metric(&mut client, "nexus_errors_total{code=\"TIMEOUT\"}"), times);
    assert!(sidecar.is_running());
}

#[test]
fn a_process_that_was_stopped_for_long_goes_on() {
    let watchdog = Watchdog::seconds(90);
    let mut sidecar = Options::new().patient().flag("max-instances", 2).flag("timeout-ms", 600_000).listen();
    let mut client = sidecar.connect();
    let mut busy = sidecar.connect();
    let running = busy.start("for (;;);");
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    sidecar.signal(Signal::SIGSTOP);
    // longer than anything may be stuck
    std::thread::sleep(Duration::from_millis(PROCESS_GRACE_MS + 1_000));
    sidecar.signal(Signal::SIGCONT);
    client.still_works();
    assert!(sidecar.is_running());
    assert_eq!(metric(&mut client, "nexus_retired_threads_total"), 0);
    assert_eq!(client.stats().active_instances, 1);
    assert!(busy.cancel_request(running));
    assert_eq!(busy.segment(running).code(), ErrorCode::Cancelled);
    drop(watchdog);
}

#[test]
fn a_thread_that_comes_back_leaves_nothing_behind() {
    let (_w, sidecar, mut client) = start("host-call:sleep=8000@1", 1);
    client.still_works();
    let before = settled_counts(sidecar.pid());
    given_up(&mut client, &Run::source("$state.x = 1; return 1").grant(&["state:write:*"]));
    assert_eq!(metric(&mut client, "nexus_retired_threads"), 1);
    eventually("the thread comes back", SOON, || metric(&mut client, "nexus_retired_threads") == 0);
    assert_eq!(metric(&mut client, "nexus_retired_threads_total"), 1);
    no_answer_is_left(&mut client);
    client.still_works();
    assert_eq!(settled_counts(sidecar.pid()), before, "descriptors, threads");
    let stats = client.stats();
    assert_eq!((stats.active_instances, stats.queued), (0, 0));
}

#[test]
fn a_run_that_comes_back_after_its_timeout_was_answered_writes_no_resident_state() {
    let (_w, _s, mut client) = start("host-call:sleep=10000@2", 2);
    let id = client.create_state(&json!({"n": 1}));
    let write = |source: &str| Run::source(source).resident(&id).grant(&["state:read:*", "state:write:*"]);
    let segment = client.run(write("$state.n = 2; $log('x'); $state.n = 3; return 1").timeout_ms(AT_ITS_FAULT_MS));
    assert_eq!(segment.code(), ErrorCode::Timeout);
    assert_eq!(metric(&mut client, "nexus_retired_threads"), 1);
    assert_eq!(client.snapshot_state(&id, None).unwrap(), (1, json!({"n": 1})));
    eventually("the thread comes back", SOON, || metric(&mut client, "nexus_retired_threads") == 0);
    assert_eq!(client.snapshot_state(&id, None).unwrap(), (1, json!({"n": 1})));
    assert_eq!(client.run(write("$state.n += 10; return $state.n")).value(), 11);
    no_answer_is_left(&mut client);
}

#[test]
fn where_memory_cannot_be_taken_away_the_thread_is_given_up() {
    let (_w, sidecar, mut client) = start("kill:error=1", 1);
    let builtin = Run::source(BUILTIN).timeout_ms(100);
    // on a busy machine its time may be over before it gets there
    eventually("it is tried", SOON, || {
        assert_eq!(client.run(builtin.clone()).code(), ErrorCode::Timeout);
        sidecar.stderr().contains("cannot take the memory")
    });
    client.still_works();
    // a loop needs no kill
    assert_eq!(client.run(Run::source("for (;;);").timeout_ms(50)).code(), ErrorCode::Timeout);
}

#[test]
fn a_stuck_run_that_is_cancelled_says_so() {
    let (_w, _s, mut client) = start("host-call:hang@1", 2);
    let id = client.start(Run::source("$log('x')").timeout_ms(60_000));
    eventually("it runs", SOON, || client.stats().active_instances == 1);
    assert!(client.cancel_request(id));
    assert_eq!(client.segment(id).code(), ErrorCode::Cancelled);
    client.still_works();
}

#[test]
fn a_resume_that_gets_stuck_ends_its_execution() {
    let (_w, _s, mut client) = start("host-call:hang@3", 2);
    let source = "await Promise.all([$ext.a.b(1).then(() => $log('x')), $ext.a.b(2)]); return 1";
    let segment = client.run(Run::source(source).grant(&["ext:*"]).timeout_ms(AT_ITS_FAULT_MS));
    let ids: Vec<String> = segment.calls.iter().map(|call| call.id.clone()).collect();
    assert_eq!(client.resume(&ids[0], &json!(1)).code(), ErrorCode::Timeout);
    assert_eq!(client.resume(&ids[1], &json!(1)).code(), ErrorCode::SuspensionError);
    assert_eq!(client.stats().suspended_instances, 0);
    client.still_works();
}

#[test]
fn a_request_that_makes_a_worker_panic_is_answered() {
    let (_w, mut sidecar, mut client) = start("worker:panic@2", 1);
    client.still_works();
    assert_eq!(client.run("return 1").code(), ErrorCode::InternalError);
    client.still_works();
    assert!(sidecar.is_running());
}

/// A connection of its own whose one request hangs.
fn hanging(sidecar: &Sidecar, timeout_ms: u64) -> Client {
    let mut client = sidecar.connect();
    client.start(Run::source("$log('x')").timeout_ms(timeout_ms));
    client
}

// shows P-two-threads
#[test]
fn a_connection_that_costs_two_threads_is_closed_and_the_process_goes_on() {
    let (_w, mut sidecar, mut client) = start("host-call:hang", 6);
    let mut costly = sidecar.connect();
    let hangs = Run::source("$log('x')");
    let first: Vec<u32> =
        (0..MAX_RETIRED_PER_CONNECTION).map(|_| costly.start(hangs.clone().timeout_ms(AT_ITS_FAULT_MS))).collect();
    eventually("they run", SOON, || client.stats().active_instances == first.len() as u64);
    // these have the places of those that are given up, and would cost more threads
    for _ in 0..MAX_RETIRED_THREADS {
        costly.start(hangs.clone().timeout_ms(600_000));
    }
    let (mut timeouts, mut told) = (Vec::new(), None);
    while let Some(reply) = costly.next_reply() {
        match reply.answer {
            Answer::Result(segment) => {
                assert_eq!(segment.code(), ErrorCode::Timeout);
                timeouts.push(reply.id);
            }
            Answer::Error(error) => told = Some(error),
            other => panic!("{other:?}"),
        }
    }
    let told = told.expect("why it is closed");
    assert_eq!(told.context.get("resource"), Some(&ContextValue::Text("retiredThreads".into())), "{told:?}");
    timeouts.sort_unstable();
    assert_eq!(timeouts, first);
    client.still_works();
    assert!(sidecar.is_running());
}

#[test]
fn too_many_stuck_threads_end_the_process() {
    let stuck = MAX_RETIRED_THREADS + 1;
    let (_w, mut sidecar, _client) = start("host-call:hang", stuck + 1);
    let mut clients: Vec<Client> = (0..stuck).map(|_| hanging(&sidecar, AT_ITS_FAULT_MS)).collect();
    let mut codes = Vec::new();
    for client in &mut clients {
        while let Some(reply) = client.next_reply() {
            let Answer::Result(segment) = reply.answer else { panic!("{reply:?}") };
            codes.push(segment.code());
        }
    }
    assert!(codes.len() >= MAX_RETIRED_THREADS && codes.iter().all(|code| *code == ErrorCode::Timeout), "{codes:?}");
    assert_eq!(sidecar.exit_code(SOON), STUCK);
    assert!(sidecar.stderr().contains("too many threads are stuck"), "{}", sidecar.stderr());
}

#[test]
fn what_was_queued_when_the_process_gives_up_is_told_to_come_again() {
    let _w = Watchdog::seconds(120);
    let options = Options::new().patient().faults("host-call:hang").flag("max-queue-ms", 0);
    let mut sidecar = options.flag("max-instances", MAX_RETIRED_THREADS).listen();
    let mut watcher = sidecar.connect();
    // all threads that may be lost
    let lost: Vec<Client> = (0..MAX_RETIRED_THREADS).map(|_| hanging(&sidecar, 100)).collect();
    eventually("they are given up", SOON, || {
        metric(&mut watcher, "nexus_retired_threads") == MAX_RETIRED_THREADS as u64
    });
    // one more, beside others that take the other places
    let one_too_many = hanging(&sidecar, AT_ITS_FAULT_MS);
    let mut busy: Vec<Client> = (1..MAX_RETIRED_THREADS).map(|_| sidecar.connect()).collect();
    for client in &mut busy {
        client.start(Run::source("for (;;);").timeout_ms(600_000));
    }
    eventually("all places are taken", SOON, || watcher.stats().active_instances == MAX_RETIRED_THREADS as u64);
    let mut queued = sidecar.connect();
    let ids = [(); 3].map(|()| queued.start(Run::source("for (;;);").timeout_ms(600_000)));
    let mut told = Vec::new();
    while let Some(reply) = queued.next_reply() {
        let Answer::Result(segment) = reply.answer else { panic!("{reply:?}") };
        assert_eq!(segment.code(), ErrorCode::Overloaded);
        told.push(reply.id);
    }
    told.sort_unstable();
    // the first may have got the place of the one that was given up, and goes with the process
    assert!(ids.ends_with(&told) && told.len() >= ids.len() - 1, "{told:?} of {ids:?}");
    assert_eq!(sidecar.exit_code(SOON), STUCK);
    drop((lost, one_too_many));
}

#[test]
fn a_panic_with_the_connections_in_hand_ends_the_process() {
    let (_w, mut sidecar, client) = start("poll:panic@6", 2);
    drop(client);
    eventually("the poll that panics comes", SOON, || {
        // while it is busy several are one event
        drop(std::os::unix::net::UnixStream::connect(sidecar.path()));
        std::thread::sleep(Duration::from_millis(20));
        !sidecar.is_running()
    });
    assert_eq!(sidecar.exit_code(SOON), STUCK);
}

#[test]
fn a_thread_that_hangs_with_the_connections_in_hand_ends_the_process() {
    let (_w, mut sidecar, mut client) = start("poll:hang@6", 2);
    eventually(
        "the poll that hangs comes, and its time is over",
        Duration::from_millis(PROCESS_GRACE_MS) + SOON,
        || {
            let _ = client.try_start("return 1");
            std::thread::sleep(Duration::from_millis(20));
            !sidecar.is_running()
        },
    );
    assert_eq!(sidecar.exit_code(SOON), STUCK);
    assert!(sidecar.stderr().contains("is stuck"), "{}", sidecar.stderr());
}

#[test]
fn a_watchdog_that_panics_ends_the_process() {
    let (_w, mut sidecar, mut client) = start("watchdog:panic@3", 1);
    client.send(&Run::source("for (;;);").message());
    assert_eq!(sidecar.exit_code(SOON), STUCK);
}
