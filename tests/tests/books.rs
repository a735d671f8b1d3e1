//! What the server keeps books of: whose end is whose, how long something has waited, what was told and what has happened.
//!
//! `NEXUS_CHURN=100000` has more innocent executions beside the churn than the gate has.

use std::fs;
use std::time::{Duration, Instant};

use nexus_protocol::message::{Check, CreateState, Precompile, Regions, Resolution, Resume, Status};
use nexus_protocol::{ClientMessage, ContextValue, ErrorCode, RequestId};
use nexus_tests::client::Answer;
use nexus_tests::process::{command, write_plan};
use nexus_tests::run::{ALL, calling};
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Options, Run, SOON, Segment, Sidecar, Watchdog, churn, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Innocent executions beside a churn, in the gate.
const INNOCENT: u64 = 6_000;
const SEED: u64 = 0x0c41;
const MAX_FRAME_BYTES: usize = 64 << 20;

/// Several requests as one write, so that the sidecar reads them one behind the other.
#[derive(Default)]
struct Batch(Vec<u8>);

impl Batch {
    fn add(&mut self, id: u32, message: &ClientMessage<'_>) {
        message.encode(RequestId(id), MAX_FRAME_BYTES, &mut self.0).unwrap();
    }

    fn run(&mut self, id: u32, run: impl Into<Run>) {
        self.add(id, &run.into().message());
    }

    fn resume(&mut self, id: u32, suspension: &str, value: &[u8]) {
        self.add(id, &ClientMessage::Resume(Resume::new(suspension, Resolution::Value(Some(value)))));
    }

    fn send(self, client: &mut Client) {
        assert!(client.write_raw(&self.0));
    }
}

fn metric(client: &mut Client, series: &str) -> u64 {
    let text = client.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series}")).parse().expect("a number")
}

fn is_draining(segment: &Segment) -> bool {
    let error = segment.error();
    error.code == ErrorCode::Overloaded && error.context.get("reason") == Some(&ContextValue::Text("draining".into()))
}

/// Answers that are still to come, each once.
fn rest(client: &mut Client) -> Vec<(u32, Answer)> {
    let mut answers: Vec<(u32, Answer)> = Vec::new();
    while let Some(reply) = client.next_reply() {
        assert!(answers.iter().all(|(id, _)| *id != reply.id), "request {} is answered twice", reply.id);
        answers.push((reply.id, reply.answer));
    }
    answers
}

#[track_caller]
fn segment_of(answers: &[(u32, Answer)], id: u32) -> &Segment {
    match answers.iter().find(|(of, _)| *of == id) {
        Some((_, Answer::Result(segment))) => segment,
        other => panic!("request {id}: {other:?}"),
    }
}

// ---- whose end it is ----

#[test]
fn what_ends_one_execution_ends_no_other() {
    let innocent = nexus_tests::number("NEXUS_CHURN", INNOCENT);
    let _w = Watchdog::seconds(120 + innocent / 50);
    let report = churn::run(innocent as usize, nexus_tests::number("NEXUS_CHURN_SEED", SEED));
    println!("{} innocent executions beside {} connections that left", report.innocent, report.left);
    assert!(report.left > 0);
    let few: Vec<_> = report.wrong.iter().take(20).collect();
    assert!(few.is_empty(), "{} of {}: {few:#?}", report.wrong.len(), report.innocent);
}

/// The first handler whose stack is captured starts an engine, which takes a while: its request has compiled its handler, and
/// does not run yet.
#[test]
fn one_that_leaves_between_compiling_and_running_takes_nobody_with_it() {
    let _w = Watchdog::seconds(120);
    for delay_ms in 0..16 {
        let sidecar = Options::new().patient().flag("max-instances", 2).listen();
        let (mut leaves, mut stays) = (sidecar.connect(), sidecar.connect());
        leaves.start(calling("const r = $ext.a.b(); return r"));
        std::thread::sleep(Duration::from_millis(delay_ms));
        let id = stays.start("let n = 0; for (let i = 0; i < 3e6; i++) n += i & 1; return n");
        std::thread::sleep(Duration::from_millis(delay_ms));
        drop(leaves);
        let segment = stays.segment(id);
        assert_eq!(segment.status, Status::Success, "{delay_ms} ms: {:?}", segment.error);
    }
}

// ---- how long something may take ----

/// A sidecar with a file of its own, which can be changed.
fn configured(text: &str) -> (TempDir, std::path::PathBuf, Sidecar) {
    let dir = TempDir::new();
    let file = dir.join("c.toml");
    fs::write(&file, text).unwrap();
    let sidecar = Options::new().flag("config", file.display()).listen();
    (dir, file, sidecar)
}

#[test]
fn a_run_may_take_what_the_configuration_allowed_when_it_began() {
    let _w = Watchdog::seconds(120);
    let (_dir, file, mut sidecar) = configured("timeoutMs = 100\nmaxInstances = 7\n");
    let mut client = sidecar.connect();
    fs::write(&file, "timeoutMs = 600000\nmaxInstances = 7\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is read", SOON, || sidecar.stderr().contains("changed: timeoutMs"));
    let ids = [(); 6].map(|()| client.start("for (;;);"));
    eventually("all run", SOON, || client.stats().active_instances == 6);
    // longer than the old bound, and all that was ever added to it
    std::thread::sleep(Duration::from_millis(8_000));
    assert!(sidecar.is_running(), "{}", sidecar.stderr());
    assert_eq!(metric(&mut client, "nexus_retired_threads_total"), 0);
    for id in ids {
        assert!(client.cancel_request(id), "it had ended: {:?}", client.wait(id));
        assert_eq!(client.segment(id).code(), ErrorCode::Cancelled);
    }
}

#[test]
fn a_request_whose_time_is_over_before_it_has_an_instance_is_told_so() {
    let _w = Watchdog::seconds(120);
    let (_dir, file, sidecar) = configured("timeoutMs = 0\nmaxInstances = 1\n");
    let (mut client, mut watcher) = (sidecar.connect(), sidecar.connect());
    let holds = client.start("for (;;);");
    eventually("it runs", SOON, || watcher.stats().active_instances == 1);
    fs::write(&file, "timeoutMs = 100\nmaxInstances = 1\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is read", SOON, || sidecar.stderr().contains("changed: timeoutMs"));
    let waiting = [
        ClientMessage::Precompile(Precompile { source: "return 'a'", handler_name: None, suspend_mode: None }),
        ClientMessage::Check(Check { source: "return 'b'" }),
        ClientMessage::CreateState(CreateState { state: Some(&[0x80]), regions: Regions::NONE }),
    ];
    let ids = waiting.map(|message| client.send(&message));
    client.ping();
    // longer than they may take
    std::thread::sleep(Duration::from_millis(300));
    assert!(watcher.stats().queued == 3 && client.cancel_request(holds));
    for id in ids {
        let Answer::Error(error) = client.wait(id) else { panic!("its time is over") };
        assert_eq!(error.code, ErrorCode::Timeout, "{error:?}");
        assert!(error.message.contains("waited for an instance"), "{error:?}");
        assert_eq!(error.context.get("limit"), Some(&ContextValue::Number(100)), "{error:?}");
        assert!(matches!(error.context.get("count"), Some(ContextValue::Number(300..))), "{error:?}");
    }
}

#[test]
fn a_run_that_hangs_is_given_up_though_the_sidecar_was_started_without_a_timeout() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    let file = dir.join("c.toml");
    fs::write(&file, "timeoutMs = 0\nmaxInstances = 2\n").unwrap();
    let plan = dir.join("plan");
    write_plan(&plan, "");
    let options = Options::new().faults(&format!("file={}", plan.display())).flag("config", file.display());
    let sidecar = options.listen();
    let mut client = sidecar.connect();
    let holds = client.start("for (;;);");
    // it counts as active before it is in its instance
    let before = nexus_tests::leaks::cpu_ticks(sidecar.pid());
    eventually("it runs", SOON, || {
        client.stats().active_instances == 1 && nexus_tests::leaks::cpu_ticks(sidecar.pid()) > before + 20
    });
    fs::write(&file, "timeoutMs = 1000\nmaxInstances = 2\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is read", SOON, || sidecar.stderr().contains("changed: timeoutMs"));
    write_plan(&plan, "map:hang@1");
    // its worker hangs in the host, where it makes a second instance
    let id = client.start("return 1");
    assert_eq!(client.segment(id).status, Status::Error);
    assert_eq!(metric(&mut client, "nexus_retired_threads_total"), 1);
    // that one began without a timeout
    assert!(client.cancel_request(holds));
    assert_eq!(client.segment(holds).code(), ErrorCode::Cancelled);
    client.still_works();
}

#[test]
fn limits_keep_their_order_through_a_reload() {
    let _w = Watchdog::seconds(60);
    let (_dir, file, mut sidecar) =
        configured("maxFrameBytes = 1048576\nmaxResultBytes = 262144\nmaxLogBytes = 4096\n");
    sidecar.connect().still_works();
    // good as a whole; but the frame of a sidecar that serves stays what it is
    fs::write(&file, "maxFrameBytes = 268435456\nmaxResultBytes = 134217728\nmaxLogBytes = 4097\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is read", SOON, || {
        let told = sidecar.stderr();
        told.contains("changed: ") || told.contains("the old one stays")
    });
    let Answer::Hello { limits, .. } = sidecar.connect_silently().hello() else { panic!("no hello") };
    assert!(limits.max_result_bytes <= limits.max_frame_bytes, "{limits:?}");
    assert!(sidecar.is_running());
}

/// What `for` one execution the books say, judged by a clock of our own: waiting takes no longer than the time that passed, and
/// its time is used up when it has passed.
fn judge_waiting(segment: &Segment, since: Instant, timeout: Duration) {
    let passed = since.elapsed();
    let queued = Duration::from_micros(segment.queue_us);
    assert!(queued <= passed, "it has waited for {queued:?}, of {passed:?} that passed");
    let is_late = segment.error.as_ref().is_some_and(|error| error.code == ErrorCode::Timeout);
    assert!(!is_late || passed >= timeout, "its {timeout:?} are not over after {passed:?}: {:?}", segment.error);
}

/// Suspends `calls` calls at once, has all of their answers wait for the same instance, and takes every segment.
fn fan_out(sidecar: &Sidecar, calls: usize, hold_up: impl FnOnce()) {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let mut client = sidecar.connect();
    let since = Instant::now();
    let source =
        "const all = Array.from({ length: $args }, (_, i) => $ext.a.b(i)); return (await Promise.all(all)).length";
    let run = Run::source(source).args(&json!(calls)).grant(&["ext:a"]).timeout_ms(TIMEOUT.as_millis() as u64);
    let first = client.run_suspended(run);
    assert_eq!(first.calls.len(), calls);
    let mut batch = Batch::default();
    // two of them, since each has a share of what may run
    let mut held_up = [(); 2].map(|()| sidecar.connect());
    let ids: Vec<u32> = (1_000..).take(calls).collect();
    for (id, call) in ids.iter().zip(&first.calls) {
        batch.resume(*id, &call.id, &[7]);
    }
    let blockers = held_up.each_mut().map(|one| one.start(Run::source("for (;;);").timeout_ms(60_000)));
    eventually("nobody else has an instance", SOON, || client.stats().active_instances == 2);
    batch.send(&mut client);
    hold_up();
    for (one, id) in held_up.iter_mut().zip(blockers) {
        one.cancel_request(id);
        one.segment(id);
    }
    let mut last = None;
    for id in ids {
        let segment = client.segment(id);
        judge_waiting(&segment, since, TIMEOUT);
        // on a machine on which it does take that long it may end
        if segment.status == Status::Error {
            assert!(since.elapsed() >= TIMEOUT, "{:?}", segment.error);
            return;
        }
        last = Some(segment).filter(|segment| segment.status == Status::Success).or(last);
    }
    assert_eq!(last.expect("one of them is the last").value(), json!(calls));
}

// shows P-charged-once
#[test]
fn answers_that_wait_together_wait_once() {
    let _w = Watchdog::seconds(120);
    // of two, so that both can be held up
    let sidecar = Options::new().patient().flag("max-instances", 2).listen();
    fan_out(&sidecar, 300, || {});
    fan_out(&sidecar, 20, || std::thread::sleep(Duration::from_millis(400)));
}

// shows P-charged-once
#[test]
fn answers_that_wait_for_each_other_wait_once() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 1).listen();
    let mut client = sidecar.connect();
    let timeout = Duration::from_secs(5);
    for calls in [30, 300] {
        let since = Instant::now();
        let source =
            "const all = Array.from({ length: $args }, (_, i) => $ext.a.b(i)); return (await Promise.all(all)).length";
        let first = client.run_suspended(Run::source(source).args(&json!(calls)).grant(&["ext:a"]));
        let ids: Vec<u32> = first.calls.iter().map(|call| client.start_resume(&call.id, &json!(1))).collect();
        let segments: Vec<Segment> = ids.into_iter().map(|id| client.segment(id)).collect();
        for segment in &segments {
            judge_waiting(segment, since, timeout);
        }
        let values: Vec<Value> = segments.iter().filter(|s| s.status == Status::Success).map(Segment::value).collect();
        assert!(values == [json!(calls)] || since.elapsed() >= timeout, "{:?}", segments.last());
    }
}

// shows P-in-time
#[test]
fn a_resume_that_came_in_time_is_in_time_however_long_it_waits() {
    const EXPIRES: Duration = Duration::from_millis(1_500);
    let _w = Watchdog::seconds(120);
    let options = Options::new().patient().flag("max-instances", 1);
    let sidecar = options.flag("suspension-timeout-ms", EXPIRES.as_millis()).listen();
    let (mut client, mut busy) = (sidecar.connect(), sidecar.connect());
    // on a busy machine some of them come too late
    let in_time = (0..20).any(|_| {
        let since = Instant::now();
        let call = client.run_suspended(calling("return await $ext.a.b()")).call().id.clone();
        let running = busy.start("for (;;);");
        eventually("the instance is taken", SOON, || busy.stats().active_instances == 1);
        let resumed = client.start_resume(&call, &json!("in time"));
        client.ping();
        let in_time = since.elapsed() < EXPIRES;
        std::thread::sleep((2 * EXPIRES).saturating_sub(since.elapsed()));
        assert!(busy.cancel_request(running));
        assert_eq!(busy.segment(running).code(), ErrorCode::Cancelled);
        let segment = client.segment(resumed);
        if in_time {
            assert_eq!(segment.value(), "in time");
        }
        in_time
    });
    assert!(in_time, "none of them came in time");
}

// ---- the end of one connection ----

// shows P-shutdown
#[test]
fn shutdown_of_one_connection_finishes_what_it_has_accepted_and_takes_nothing_new() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 1).listen();
    let (mut client, mut other) = (sidecar.connect(), sidecar.connect());
    client.still_works();
    let [before, behind] = [(); 2].map(|()| client.run_suspended(calling("return await $ext.a.b()")).call().id.clone());
    let mut batch = Batch::default();
    batch.run(100, "for (let i = 0; i < 3e6; i++); return 'running'");
    batch.run(101, "return 'queued'");
    batch.resume(102, &before, &[0xa6, b'r', b'e', b's', b'u', b'm', b'e']);
    batch.add(103, &ClientMessage::Shutdown);
    batch.run(104, "return 'behind'");
    batch.resume(105, &behind, &[0xa6, b'b', b'e', b'h', b'i', b'n', b'd']);
    batch.add(106, &ClientMessage::Ping);
    batch.send(&mut client);
    let answers = rest(&mut client);
    for (id, value) in [(100, "running"), (101, "queued"), (102, "resume"), (105, "behind")] {
        assert_eq!(segment_of(&answers, id).value(), value);
    }
    assert!(is_draining(segment_of(&answers, 104)), "{:?}", segment_of(&answers, 104));
    assert!(answers.iter().any(|(id, answer)| *id == 106 && matches!(answer, Answer::Pong)));
    let last = answers.last().expect("there are some");
    assert!(last.0 == 103 && matches!(last.1, Answer::Done { .. }), "it ends after `done`: {last:?}");
    other.still_works();
}

// shows P-shutdown
#[test]
fn shutdown_of_one_connection_cancels_what_is_not_done_in_time_and_touches_no_other() {
    let _w = Watchdog::seconds(120);
    let options = Options::new().patient().flag("max-instances", 2).flag("drain-timeout-ms", 300);
    let sidecar = options.listen();
    let (mut client, mut other) = (sidecar.connect(), sidecar.connect());
    let long = other.start("for (;;);");
    eventually("the other one runs", SOON, || other.stats().active_instances == 1);
    let mut batch = Batch::default();
    batch.run(100, "for (;;);");
    batch.run(101, "return 'queued'");
    batch.add(102, &ClientMessage::Shutdown);
    batch.send(&mut client);
    let answers = rest(&mut client);
    for id in [100, 101] {
        assert_eq!(segment_of(&answers, id).code(), ErrorCode::Cancelled, "request {id}");
    }
    let last = answers.last().expect("there are some");
    assert!(last.0 == 102 && matches!(last.1, Answer::Done { .. }), "{last:?}");
    assert!(other.cancel_request(long), "it was not this one's to end");
    assert_eq!(other.segment(long).code(), ErrorCode::Cancelled);
    other.still_works();
}

// shows P-half-closed
#[test]
fn a_connection_that_closes_its_writing_half_leaves_nothing_running() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let mut watcher = sidecar.connect();
    let before = nexus_tests::leaks::settled_counts(sidecar.pid());
    for source in ["return 1", "for (;;);", "return await $ext.a.b()"] {
        let mut client = sidecar.connect();
        let id = client.start(calling(source));
        client.stream().shutdown(std::net::Shutdown::Write).unwrap();
        for (of, answer) in rest(&mut client) {
            assert!(of == id && matches!(answer, Answer::Result(_)), "{source}: {answer:?}");
        }
        drop(client);
        eventually("its execution has ended", SOON, || {
            let stats = watcher.stats();
            (stats.active_instances, stats.suspended_instances, stats.queued) == (0, 0, 0)
        });
    }
    assert_eq!(nexus_tests::leaks::settled_counts(sidecar.pid()), before, "descriptors, threads");
    watcher.still_works();
}

// ---- what was told, and what has happened ----

/// The largest `maxResultBytes` that goes with a frame, as the program itself says.
fn largest_result(frame: u64, log: u64) -> u64 {
    let dir = TempDir::new();
    let fits = |bytes: u64| {
        let mut check = command(dir.path());
        check.args(["serve", "--check-config", "--max-source-bytes", "65536"]);
        for (flag, value) in [("--max-frame-bytes", frame), ("--max-log-bytes", log), ("--max-result-bytes", bytes)] {
            check.arg(flag).arg(value.to_string());
        }
        check.output().unwrap().status.success()
    };
    let (mut low, mut high) = (1, frame + 1);
    assert!(fits(low) && !fits(high), "a result fits a frame");
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

/// Handlers whose answers are as large as they may be: whatever is told of one has happened, and nothing else has.
#[test]
fn a_segment_whose_answer_fits_no_frame_has_not_half_happened() {
    const FRAME: u64 = 128 << 10;
    const LOG: u64 = 16 << 10;
    let _w = Watchdog::seconds(180);
    let result = largest_result(FRAME, LOG);
    println!("{result} of {FRAME}");
    let options = Options::new().patient().flag("max-frame-bytes", FRAME).flag("max-log-bytes", LOG);
    let options = options.flag("max-source-bytes", 65_536);
    let sidecar = options.flag("max-result-bytes", result).flag("max-instances", 1).listen();
    let handlers = [
        "$state.n = 1; return 'x'.repeat($args)",
        "$state.n = 1; return await $ext.a.b('x'.repeat($args))",
        "$state.n = 1; const [a] = await Promise.all([$ext.a.b('x'.repeat($args >> 1)), $ext.a.b('x'.repeat($args >> 1))]); return a",
        "$state.n = 1; $emit('e', 'x'.repeat($args)); return 1",
        "$state.n = 'x'.repeat($args); return await $ext.a.b()",
        "$log('y'.repeat(15000)); $state.n = 1; return await $ext.a.b('x'.repeat($args))",
        "$log('y'.repeat(15000)); $state.n = 1; throw Object.assign(new Error('m'.repeat(8000)), { f: 'x'.repeat(15000) })",
    ];
    let mut wrong = Vec::new();
    for source in handlers {
        for short_by in (0..1200).step_by(60).chain([2_000, 5_000]) {
            let mut client = sidecar.connect();
            let id = client.create_state(&json!({"n": 0}));
            let run = Run::source(source).args(&json!(result - short_by)).grant(&ALL);
            let segment = client.run(run.resident(&id));
            let (version, _) = client.snapshot_state(&id, Some(&[])).unwrap();
            let suspended = client.stats().suspended_instances;
            let told = segment.state_version.unwrap_or(1);
            let holds = segment.status == Status::Suspended;
            if told != version || segment.mutations != json!([]) && told == 1 || suspended != u64::from(holds) {
                wrong.push(format!(
                    "{source}, {short_by} less: {:?}, version {told} is told and {version} is there, {suspended} suspended; {:?}",
                    segment.status, segment.error
                ));
            }
            if holds {
                assert!(client.cancel_suspension(&segment.call().id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}
