//! Peers that are slow, silent or greedy, and what the others feel of it.

use std::time::{Duration, Instant};

use nexus_protocol::limits::{FRAME_READ_TIMEOUT_MS, MAX_UNREAD_BYTES};
use nexus_protocol::message::{Check, Precompile};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::client::Answer;
use nexus_tests::leaks::until_complete;
use nexus_tests::{Client, LeakProbe, Options, Run, SOON, Watchdog, eventually, time};
use nix::sys::signal::Signal;

/// For rounds that each may find what is wrong: a busy machine does fewer of them.
const LONG_ENOUGH: Duration = Duration::from_secs(20);

// shows P-slow-frames
#[test]
fn half_frames_and_silence_before_hello_are_closed_in_time_and_idle_sessions_stay() {
    let _w = Watchdog::seconds(180);
    let sidecar = Options::new().patient().listen();
    let mut healthy = sidecar.connect();
    let mut idle = sidecar.connect();
    let mut silent: Vec<Client> = (0..50).map(|_| sidecar.connect_silently()).collect();
    let mut slow: Vec<Client> = (0..250).map(|_| sidecar.connect()).collect();
    let started = Instant::now();
    // 200 bytes, of which one comes each second
    slow.iter_mut().for_each(|client| assert!(client.write_raw(&[200, 0, 0, 0])));
    let allowed = Duration::from_millis(FRAME_READ_TIMEOUT_MS);
    while started.elapsed() < allowed {
        healthy.still_works();
        std::thread::sleep(Duration::from_millis(500));
        for client in &mut slow {
            client.write_raw(&[0x93]);
        }
    }
    for client in slow.iter_mut().chain(&mut silent) {
        let reply = client.next_reply().expect("it is told why its connection ends");
        let Answer::Error(error) = reply.answer else { panic!("{reply:?}") };
        assert!(error.code == ErrorCode::ProtocolError && error.message.contains("to arrive"), "{error:?}");
        assert!(client.is_closed());
        healthy.still_works();
    }
    // on a machine that is busy all of this takes its time, with 300 of them and one thread of ours
    let took = started.elapsed();
    assert!(took < allowed + Duration::from_secs(60), "{took:?}");
    idle.still_works();
    healthy.still_works();
}

#[test]
fn a_frame_that_comes_in_pieces_in_time_is_taken() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    let mut client = sidecar.connect();
    let mut frames = Vec::new();
    ClientMessage::Ping.encode(nexus_protocol::RequestId(900), 1 << 16, &mut frames).unwrap();
    for byte in frames {
        assert!(client.write_raw(&[byte]));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(client.wait(900), Answer::Pong));
}

#[test]
fn an_idle_session_costs_little() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    sidecar.connect().still_works();
    until_complete(sidecar.pid());
    let before = LeakProbe::of(sidecar.pid()).rss_bytes;
    let sessions: Vec<Client> = (0..500).map(|_| sidecar.connect()).collect();
    let grown = LeakProbe::of(sidecar.pid()).rss_bytes.saturating_sub(before) / sessions.len() as u64;
    assert!(grown <= 32 << 10, "{grown} bytes for each session");
}

// shows P-unread
#[test]
fn a_session_that_reads_nothing_is_not_read_from_and_disturbs_nobody() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().patient().flag("max-instances", 2).listen();
    let mut deaf = sidecar.connect();
    for _ in 0..30 {
        deaf.start("return 'x'.repeat(1 << 20)");
    }
    let mut other = sidecar.connect();
    // what is made beyond that is the matter of another test, see `held_bytes`
    let unread = MAX_UNREAD_BYTES as u64 / (1 << 20);
    eventually("as much is unread as may be", SOON, || other.stats().total_executions >= unread);
    // the socket fills up, since nobody reads from it any more
    deaf.stream().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut refused = false;
    for _ in 0..200 {
        refused |= !deaf.write_raw(&[0x01; 65536]);
        if refused {
            break;
        }
    }
    assert!(refused, "it is read from though it reads nothing");
    other.still_works();
}

#[test]
fn a_greedy_session_is_refused_and_others_are_served_in_turn() {
    let _w = Watchdog::seconds(60);
    let options = Options::new().patient().flag("max-instances", 1).flag("max-queued", 60);
    let sidecar = options.listen();
    let (mut greedy, mut other) = (sidecar.connect(), sidecar.connect());
    let requests: Vec<u32> = (0..200).map(|_| greedy.start("for (let i = 0; i < 1e6; i++);")).collect();
    greedy.ping();
    let waited = other.run("return 1").queue_us;
    let (mut refused, mut longest) = (0, 0);
    for request in requests {
        let segment = greedy.segment(request);
        longest = longest.max(segment.queue_us);
        if let Some(error) = segment.error {
            assert_eq!(error.code, ErrorCode::Overloaded);
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} were refused");
    // it came when thirty or so were waiting already: two of them may go before it, and the last of them waits for all
    assert!(waited < longest / 2, "it waited for {waited} us, and the last of the greedy one's for {longest} us");
}

// shows P-cancel
#[test]
fn whoever_is_told_that_a_request_is_cancelled_hears_it_of_the_answer_too() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let mut client = sidecar.connect();
    let state = client.create_state(&serde_json::json!({ "n": 0 }));
    let source = "for (let i = 0; i < 300_000; i++); $state.n = $state.n + 1; return 7";
    let run = || Run::source(source).grant(&["state:read:n", "state:write:n"]).resident(&state);
    client.run(run());
    let alone = time(|| drop(client.run(run())));
    let (mut told, mut late) = (0, 0);
    let begun = Instant::now();
    for round in (0..900).take_while(|_| begun.elapsed() < LONG_ENOUGH) {
        // when the run is about to end
        let asked = client.start(run());
        std::thread::sleep(alone.mul_f64(0.6 + f64::from(round % 90) / 150.0));
        let cancelled = client.cancel_request(asked);
        let segment = client.segment(asked);
        assert_eq!(cancelled, segment.error.is_some(), "{segment:?}");
        if cancelled {
            assert_eq!(segment.code(), ErrorCode::Cancelled);
            told += 1;
        } else {
            late += 1;
        }
    }
    println!("{told} were cancelled, {late} were over");
}

// shows P-cancel
#[test]
fn a_request_can_be_cancelled_while_queued_running_suspended_and_draining() {
    let _w = Watchdog::seconds(60);
    let options = Options::new().patient().flag("max-instances", 1);
    let mut sidecar = options.flag("drain-timeout-ms", 20_000).listen();
    let mut client = sidecar.connect();
    let suspended = client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    let running = client.start("for (;;);");
    let queued = client.start("return 1");
    eventually("one runs", SOON, || client.stats().active_instances == 1);
    assert!(client.cancel_request(queued));
    assert_eq!(client.segment(queued).code(), ErrorCode::Cancelled);
    assert!(client.cancel_suspension(&suspended.call().id));
    assert!(!client.cancel_suspension(&suspended.call().id), "it is gone");
    sidecar.signal(Signal::SIGTERM);
    eventually("it drains", SOON, || sidecar.stderr().contains("told to end"));
    assert!(client.cancel_request(running));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    assert_eq!(sidecar.exit_code(SOON), 0);
}

// shows P-cancel
#[test]
fn a_compilation_that_somebody_was_told_is_cancelled_is_not_answered_with_what_came_of_it() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let mut client = sidecar.connect();
    let source = |round: u32| {
        let functions = (0..200).map(|n| format!("function f{n}(a) {{ return [a, {n}, {round}] }}\n"));
        format!("{}return 1", functions.collect::<String>())
    };
    client.check(&source(0)).unwrap();
    let alone = time(|| drop(client.check(&source(1)).unwrap()));
    let (mut told, mut late) = (0, 0);
    let begun = Instant::now();
    for round in (2..900).take_while(|_| begun.elapsed() < LONG_ENOUGH) {
        let source = source(round);
        let asked = match round % 2 {
            0 => client.send(&ClientMessage::Check(Check { source: &source })),
            _ => client.send(&ClientMessage::Precompile(Precompile {
                source: &source,
                handler_name: None,
                suspend_mode: None,
            })),
        };
        // when it is about to end
        std::thread::sleep(alone.mul_f64(0.5 + f64::from(round % 90) / 90.0));
        let cancelled = client.cancel_request(asked);
        match client.wait(asked) {
            Answer::Error(error) if cancelled => {
                assert_eq!(error.code, ErrorCode::Cancelled);
                told += 1;
            }
            Answer::Compiled { .. } | Answer::Checked(_) if !cancelled => late += 1,
            other => panic!("it was told {cancelled}, and {other:?}"),
        }
    }
    println!("{told} were cancelled, {late} were over");
}
