//! Frames, hello, every kind of request, and everything that a broken or hostile client can send.

use std::sync::atomic::{AtomicBool, Ordering};

use nexus_protocol::limits::MAX_CONTROL_FRAME_BYTES;
use nexus_protocol::message::{Check, Kind, Precompile};
use nexus_protocol::{ClientMessage, ErrorCode, RequestId, WireError};
use nexus_tests::golden::{self, Vector};
use nexus_tests::leaks::settled_counts;
use nexus_tests::{Answer, Client, Options, Reply, Rng, Run, SOON, Segment, Sidecar, Watchdog, eventually};
use serde_json::json;

const MAX_FRAME: usize = 1 << 20;

fn listening() -> (Watchdog, Sidecar) {
    (Watchdog::seconds(90), Options::new().listen())
}

/// Of which handlers run or wait until the test has seen it.
fn patient() -> (Watchdog, Sidecar) {
    (Watchdog::seconds(90), Options::new().patient().listen())
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

fn encoded(id: u32, message: &ClientMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(RequestId(id), MAX_FRAME, &mut out).unwrap();
    out
}

#[track_caller]
fn error_of(reply: Option<Reply>) -> (u32, WireError) {
    match reply {
        Some(Reply { id, answer: Answer::Error(error) }) => (id, error),
        other => panic!("an error was expected: {other:?}"),
    }
}

/// The connection is refused with one PROTOCOL_ERROR, and then closed.
#[track_caller]
fn refused(client: &mut Client) -> WireError {
    let (_, error) = error_of(client.next_reply());
    assert_eq!(error.code, ErrorCode::ProtocolError);
    assert!(client.is_closed(), "the connection was to be closed");
    error
}

// ---- hello ----

// shows P-limits-in-force
#[test]
fn hello_tells_who_serves_and_what_is_in_force() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().flag("timeout-ms", 1234).flag("max-events", 7).debug().listen();
    let Answer::Hello { version, pid, debug, engine, build, limits } = sidecar.connect_silently().hello() else {
        panic!()
    };
    assert_eq!((version, pid, debug), (2, sidecar.pid(), true));
    assert!(engine.len() == 64 && engine.bytes().all(|b| b.is_ascii_hexdigit()), "{engine}");
    assert!(!build.is_empty());
    assert_eq!((limits.timeout_ms, limits.max_events, limits.max_frame_bytes), (1234, 7, 64 << 20));
}

#[test]
fn a_wrong_magic_is_refused() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect_silently();
    let answer = client.hello_with("nexus-sidecaR", 1, 1);
    assert!(matches!(&answer, Answer::Error(e) if e.code == ErrorCode::ProtocolError), "{answer:?}");
    assert!(client.is_closed());
}

// shows P-no-common-version
#[test]
fn no_common_version_names_both_ranges() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect_silently();
    let Answer::Error(error) = client.hello_with(nexus_protocol::MAGIC, 40, 47) else { panic!() };
    assert_eq!(error.code, ErrorCode::ProtocolError);
    // one that takes each list of calls for all of them
    let past = sidecar.connect_silently().hello_with(nexus_protocol::MAGIC, 1, 1);
    assert!(matches!(&past, Answer::Error(error) if error.message.contains("1 to 1")), "{past:?}");
    assert!(error.message.contains("40 to 47") && error.message.contains("2 to 2"), "{}", error.message);
    assert!(client.is_closed());
    // a range that reaches beyond ours still has one in common
    let answer = sidecar.connect_silently().hello_with(nexus_protocol::MAGIC, 1, 47);
    assert!(matches!(answer, Answer::Hello { version: 2, .. }), "{answer:?}");
}

// shows P-hello-first
#[test]
fn hello_comes_first_and_once() {
    let (_w, sidecar) = listening();
    let mut late = sidecar.connect_silently();
    late.send(&ClientMessage::Ping);
    refused(&mut late);
    let mut twice = sidecar.connect();
    let (_, error) = match twice.hello() {
        Answer::Error(error) => (0, error),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.code, ErrorCode::ProtocolError);
    assert!(twice.is_closed());
}

// ---- requests ----

#[test]
fn every_kind_of_request_is_answered_by_its_kind() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    client.ping();
    client.still_works();
    let compiled = client.request(&ClientMessage::Precompile(Precompile {
        source: "return 5",
        handler_name: Some("five"),
        suspend_mode: None,
    }));
    let Answer::Compiled { handle, cache_hit, .. } = compiled else { panic!("{compiled:?}") };
    assert!(!cache_hit);
    assert_eq!(client.run(Run::handle(&handle)).value(), 5);
    let checked = client.request(&ClientMessage::Check(Check { source: "return 5" }));
    assert!(matches!(checked, Answer::Checked { .. }), "{checked:?}");
    let suspended = client.run(Run::source("return await $ext.a.b(1)").grant(&["ext:a"]));
    let call = suspended.call().clone();
    assert_eq!((&*call.extension, &*call.method, &call.args), ("a", "b", &json!([1])));
    assert_eq!(client.resume(&call.id, &json!("r")).value(), "r");
    assert!(!client.cancel_request(99_999));
    assert!(!client.cancel_suspension(&call.id));
    let stats = client.stats();
    assert!(stats.total_executions >= 3 && stats.uptime_ms > 0, "{stats:?}");
    let metrics = client.metrics();
    assert!(metrics.contains("nexus_handler_executions_total{status=\"success\"}"), "{metrics}");
    let done = client.request(&ClientMessage::Shutdown);
    assert!(matches!(done, Answer::Done { .. }), "{done:?}");
}

#[test]
fn shutdown_ends_the_connection_of_a_service_and_not_the_service() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    let done = client.request(&ClientMessage::Shutdown);
    assert!(matches!(done, Answer::Done { .. }), "{done:?}");
    assert!(client.is_closed());
    sidecar.connect().still_works();
}

// shows P-any-order
#[test]
fn answers_come_as_they_are_ready() {
    let (_w, sidecar) = patient();
    let mut client = sidecar.connect();
    let slow = client.start("for (;;);");
    let fast = client.start("return 'fast'");
    let ping = client.send(&ClientMessage::Ping);
    let mut answered = [(); 2].map(|()| client.next_reply().unwrap().id);
    answered.sort_unstable();
    assert_eq!(answered, [fast, ping]);
    assert!(client.cancel_request(slow));
    assert_eq!(client.segment(slow).code(), ErrorCode::Cancelled);
}

#[test]
fn an_answer_does_not_wait_for_what_its_worker_does_next() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().patient().flag("max-instances", 1).flag("timeout-ms", 600_000).listen();
    let mut client = sidecar.connect();
    client.still_works();
    for _ in 0..50 {
        // the ones before it are done while it waits, and the last of them has it run next
        let quick = [(); 5].map(|()| client.start("return 1"));
        let endless = client.start("for (;;);");
        for id in quick {
            assert_eq!(client.segment(id).value(), 1);
        }
        assert!(client.cancel_request(endless));
        let after = client.start("for (;;);");
        assert_eq!(client.segment(endless).code(), ErrorCode::Cancelled);
        assert!(client.cancel_request(after));
        assert_eq!(client.segment(after).code(), ErrorCode::Cancelled);
    }
}

// shows P-ping
#[test]
fn ping_is_answered_while_all_instances_are_busy() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().patient().flag("max-instances", 1).listen();
    let mut busy = sidecar.connect();
    let running = busy.start("for (;;);");
    let mut other = sidecar.connect();
    eventually("it is busy", SOON, || other.stats().active_instances == 1);
    for _ in 0..20 {
        other.ping();
        busy.ping();
    }
    assert_eq!(other.stats().active_instances, 1);
    assert!(busy.cancel_request(running));
    assert_eq!(busy.segment(running).code(), ErrorCode::Cancelled);
}

// shows P-one-answer
#[test]
fn hundreds_of_pipelined_requests_are_each_answered_once() {
    let (_w, sidecar) = patient();
    let mut client = sidecar.connect();
    let ids: Vec<u32> = (0..500).map(|i| client.start(Run::source("return $args").args(&json!(i)))).collect();
    let mut seen = vec![0u32; ids.len()];
    for _ in &ids {
        let Reply { id, answer: Answer::Result(segment) } = client.next_reply().unwrap() else { panic!() };
        let at = ids.iter().position(|i| *i == id).unwrap();
        seen[at] += 1;
        assert_eq!(segment.value(), json!(at));
    }
    assert!(seen.iter().all(|n| *n == 1));
}

// shows P-id-in-use
#[test]
fn an_id_that_is_in_use_is_a_protocol_error() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    let run = Run::source("for (;;);");
    client.send_as(9, &run.message());
    client.send_as(9, &run.message());
    let (_, error) = error_of(client.next_reply());
    assert_eq!(error.code, ErrorCode::ProtocolError);
    sidecar.connect().still_works();
}

// shows P-id-again
#[test]
fn an_id_may_be_used_again_as_soon_as_it_is_answered() {
    let (_w, sidecar) = patient();
    // others keep the workers busy, so that each may be interrupted at any point
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut busy = sidecar.connect();
                while !done.load(Ordering::Relaxed) {
                    let ids = [(); 4].map(|()| busy.start("for (let i = 0; i < 2e5; i++);"));
                    ids.iter().for_each(|id| drop(busy.segment(*id)));
                }
            });
        }
        let mut client = sidecar.connect();
        let run = Run::source("return 1");
        (1..=16).for_each(|id| client.send_as(id, &run.message()));
        let refused = (0..15_000).find_map(|_| {
            let Reply { id, answer } = client.next_reply().unwrap();
            if let Answer::Error(error) = answer {
                return Some(error);
            }
            client.send_as(id, &run.message());
            None
        });
        done.store(true, Ordering::Relaxed);
        assert!(refused.is_none(), "{refused:?}");
    });
}

// shows P-small-frames
#[test]
fn a_request_that_needs_no_large_frame_is_refused_in_one_and_the_connection_goes_on() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    let sized = |kind: u8, id: u8, bytes: usize| {
        // [kind, id, {"x": bin}], a bin of 16 bits
        let mut body = vec![0x93, kind, id, 0x81, 0xa1, b'x', 0xc5];
        let rest = bytes - body.len() - 2;
        body.extend((rest as u16).to_be_bytes());
        body.resize(bytes, 0);
        [&(bytes as u32).to_le_bytes()[..], &body].concat()
    };
    for kind in [Kind::Ping, Kind::Stats, Kind::Metrics, Kind::Executions] {
        client.write_raw(&sized(kind.number(), 9, MAX_CONTROL_FRAME_BYTES + 1));
        let (id, error) = error_of(client.next_reply());
        assert_eq!((id, error.code), (9, ErrorCode::ProtocolError), "{kind:?}");
        client.write_raw(&sized(kind.number(), 9, MAX_CONTROL_FRAME_BYTES));
        let reply = client.next_reply().unwrap();
        assert!(reply.id == 9 && !matches!(reply.answer, Answer::Error(_)), "{kind:?}: {reply:?}");
    }
    let mut stranger = sidecar.connect_silently();
    stranger.write_raw(&sized(Kind::Hello.number(), 0, MAX_CONTROL_FRAME_BYTES + 1));
    assert_eq!(error_of(stranger.next_reply()).1.code, ErrorCode::ProtocolError);
    assert!(stranger.next_reply().is_none(), "before hello it ends the connection");
}

#[test]
fn a_frame_may_arrive_one_byte_at_a_time() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    let bytes = encoded(5, &Run::source("return 'slowly'").message());
    for byte in &bytes {
        client.write_raw(&[*byte]);
    }
    assert_eq!(client.segment(5).value(), "slowly");
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let (_w, sidecar) = patient();
    let mut client = sidecar.connect();
    let ids: Vec<u32> = (0..24).map(|_| client.start("return 'x'.repeat(500000)")).collect();
    // the answers are more than any socket buffer holds; others are served meanwhile
    let mut other = sidecar.connect();
    for _ in 0..20 {
        other.still_works();
    }
    for id in ids {
        assert_eq!(client.segment(id).value().as_str().unwrap().len(), 500_000);
    }
}

#[test]
fn a_large_request_and_a_large_answer_pass() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    let text = "y".repeat(5_000_000);
    assert_eq!(client.run(Run::source("return $args").args(&json!(text))).value(), json!(text));
    client.still_works();
}

// ---- bad frames ----

// shows P-frame-length
#[test]
fn a_frame_of_no_length_and_one_too_long_are_refused_at_their_header() {
    let (_w, sidecar) = listening();
    for header in [[0, 0, 0, 0], [1, 0, 0, 4], [0xff, 0xff, 0xff, 0xff]] {
        let mut client = sidecar.connect();
        client.write_raw(&header);
        refused(&mut client);
        let mut silent = sidecar.connect_silently();
        silent.write_raw(&header);
        refused(&mut silent);
    }
    sidecar.connect().still_works();
}

// shows P-malformed-closes
#[test]
fn garbage_and_trailing_bytes_are_refused() {
    let (_w, sidecar) = listening();
    let ping = encoded(3, &ClientMessage::Ping);
    let trailing = frame(&[&ping[4..], &[0xc0]].concat());
    let cases: Vec<Vec<u8>> = vec![
        frame(b"GET / HTTP/1.1\r\n\r\n"),
        frame(&[0xc1]),
        frame(&[0x93, 0x02, 0x01]),
        frame(&[0x92, 0x09, 0x01]),
        frame(&[0x94, 0x09, 0x01, 0x80, 0x80]),
        frame(&[0x93, 0x09, 0x01, 0x90]),
        frame(&[0x93, 0x09, 0x00, 0x80]),
        frame(&[0x93, 0xa1, b'x', 0x01, 0x80]),
        trailing,
    ];
    for bytes in cases {
        let mut client = sidecar.connect();
        client.write_raw(&bytes);
        refused(&mut client);
    }
    sidecar.connect().still_works();
}

// shows P-unknown-kind
#[test]
fn an_unknown_kind_is_refused_and_the_connection_goes_on() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    for kind in [0x00, 0x7e, 0x7f, Kind::Pong.number(), Kind::Result.number(), 0xfe] {
        let mut body = vec![0x93];
        body.extend(if kind < 0x80 { vec![kind] } else { vec![0xcc, kind] });
        body.extend([0x2a, 0x80]);
        client.write_raw(&frame(&body));
        let (id, error) = error_of(client.next_reply());
        assert_eq!((id, error.code), (42, ErrorCode::ProtocolError), "kind {kind:#x}");
        client.still_works();
    }
}

// shows P-malformed
#[test]
fn every_rejection_vector_is_answered_as_it_says() {
    let (_w, sidecar) = listening();
    for vector in golden::vectors().iter().filter(|v| v.sort() == "rejection" && v.is_for_sidecar()) {
        let expected = &vector.json["error"];
        // a bad hello is sent as the first frame, so that it is refused for what is bad in it
        let first = vector.name.starts_with("rejection-hello");
        let mut client = if first { sidecar.connect_silently() } else { sidecar.connect() };
        client.write_raw(&vector.bytes);
        let (id, error) = match client.next_reply() {
            // a request that is well-formed and has a bad value
            Some(Reply { id, answer: Answer::Result(Segment { error: Some(error), .. }) }) => (id, error),
            other => error_of(other),
        };
        let about = format!("{}: {error:?}", vector.name);
        assert_eq!(error.code.as_str(), expected["code"].as_str().unwrap(), "{about}");
        assert_eq!(json!(id), expected["id"], "{about}");
        assert!(error.message.contains(expected["contains"].as_str().unwrap_or_default()), "{about}");
        if expected["closes"].as_bool().unwrap() {
            assert!(client.is_closed(), "{about}");
        } else {
            client.still_works();
        }
    }
}

#[test]
fn every_client_vector_is_answered() {
    let (_w, sidecar) = listening();
    for vector in golden::vectors().iter().filter(|v| v.sort() == "message" && v.is_for_sidecar()) {
        let hello = vector.json["kind"] == "hello" || vector.bytes[4..].starts_with(&[0x93, 0x01]);
        let mut client = if hello { sidecar.connect_silently() } else { sidecar.connect() };
        client.write_raw(&vector.bytes);
        let reply = client.next_reply().unwrap_or_else(|| panic!("{} was not answered", vector.name));
        assert_eq!(json!(reply.id), vector.json["id"], "{}: {:?}", vector.name, reply.answer);
    }
    sidecar.connect().still_works();
}

// ---- clients that vanish ----

#[test]
fn a_client_that_vanishes_in_the_middle_of_a_frame_leaves_nothing() {
    let (_w, sidecar) = listening();
    sidecar.connect().still_works();
    eventually("the first connection is gone", SOON, || sidecar.connect().stats().active_instances == 0);
    let before = settled_counts(sidecar.pid());
    let bytes = encoded(5, &Run::source("return 'never'").message());
    for cut in [1, 3, 4, 5, bytes.len() / 2, bytes.len() - 1] {
        sidecar.connect().write_raw(&bytes[..cut]);
    }
    assert_eq!(settled_counts(sidecar.pid()), before);
}

#[test]
fn a_client_that_vanishes_while_its_handler_runs_stops_it() {
    let (_w, sidecar) = patient();
    let mut watcher = sidecar.connect();
    for _ in 0..5 {
        let mut client = sidecar.connect();
        // long before its time is over
        client.start("for (;;);");
        eventually("the handler runs", SOON, || watcher.stats().active_instances == 1);
        drop(client);
        eventually("the handler is stopped", SOON, || watcher.stats().active_instances == 0);
    }
    watcher.still_works();
}

#[test]
fn a_client_that_closes_its_writing_half_still_gets_its_answer_or_is_closed() {
    let (_w, sidecar) = listening();
    let mut client = sidecar.connect();
    client.start("return 1");
    client.stream().shutdown(std::net::Shutdown::Write).unwrap();
    // either is right; what is not is a connection that hangs
    while client.next_reply().is_some() {}
    sidecar.connect().still_works();
}

// ---- mutated vectors ----

#[test]
fn no_malformed_frame_harms_anybody_else() {
    let (_w, mut sidecar) = listening();
    let mut rng = Rng::new(0x6e65_7875);
    let vectors: Vec<Vector> = golden::vectors().into_iter().filter(Vector::is_for_sidecar).collect();
    let mut healthy = sidecar.connect();
    let mut sent = 0;
    for vector in &vectors {
        for bytes in malformed(&mut rng, &vector.bytes) {
            send_and_leave(&sidecar, &bytes, rng.below(4) == 0);
            sent += 1;
            if sent % 16 == 0 {
                healthy.still_works();
                sidecar.connect().still_works();
            }
        }
    }
    assert!(sent >= 300, "{sent}");
    assert!(sidecar.is_running());
    healthy.still_works();
    assert_eq!(sidecar.stdout(), "");
    drop(healthy);
    let mut last = sidecar.connect();
    eventually("all executions have ended", SOON, || {
        let stats = last.stats();
        (stats.active_instances, stats.suspended_instances, stats.queued) == (0, 0, 0)
    });
}

/// Truncations, and mutations that keep an honest length so that they get past the frame decoder.
fn malformed(rng: &mut Rng, good: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..2 {
        all.push(good[..rng.below(good.len())].to_vec());
        let mut mutated = good.to_vec();
        rng.mutate(&mut mutated);
        all.push(mutated);
        let mut body = good.get(4..).unwrap_or_default().to_vec();
        rng.mutate(&mut body);
        all.push(frame(&body));
    }
    all
}

/// Sends bytes on a connection of their own and reads what comes, as far as anything comes at once.
fn send_and_leave(sidecar: &Sidecar, bytes: &[u8], silent: bool) {
    let mut client = if silent { sidecar.connect_silently() } else { sidecar.connect() };
    client.write_raw(bytes);
    let _ = client.stream().shutdown(std::net::Shutdown::Write);
    while client.next_reply().is_some() {}
}
