//! Connections at their edges: a parent that stands still, peers that read too little, frames for which there is no room, places
//! that are all taken, and the last word before the end.

use std::time::{Duration, Instant};

use nexus_protocol::limits::{
    ARENA_OPEN_TIMEOUT_MS, FRAME_READ_TIMEOUT_MS, MAX_CONNECTIONS, MAX_TOTAL_QUEUED_BYTES, OPERATOR_CONNECTIONS,
};
use nexus_protocol::message::OpenArena;
use nexus_protocol::{ClientMessage, ErrorCode, RequestId};
use nexus_tests::leaks::{LeakProbe, private_bytes, until_complete};
use nexus_tests::process::command;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, Reply, Run, SOON, Sidecar, Watchdog, eventually};

const MIB: usize = 1 << 20;

fn encoded(id: u32, message: &ClientMessage<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(RequestId(id), 64 * MIB, &mut frame).unwrap();
    frame
}

// shows P-parent-may-stand
#[test]
fn a_parent_that_stands_still_within_a_frame_or_before_hello_loses_nothing() {
    let _w = Watchdog::seconds(120);
    let long = Duration::from_millis(FRAME_READ_TIMEOUT_MS + 3_000);
    let (_sidecar, mut parent) = Options::new().child();
    let (_other, silent) = Options::new().child_stream();
    let frame = encoded(700, &Run::source("return 'whole'").message());
    let (half, rest) = frame.split_at(frame.len() / 2);
    assert!(parent.write_raw(half));
    std::thread::sleep(long);
    assert!(parent.write_raw(rest));
    assert_eq!(parent.segment(700).value(), "whole");
    let mut silent = Client::over(silent);
    assert!(matches!(silent.hello(), Answer::Hello { .. }));
    silent.still_works();
}

// shows P-malformed-closes
#[test]
fn a_peer_that_is_told_why_hears_it_though_its_socket_is_full() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().flag("max-instances", 1).listen();
    let mut deaf = sidecar.connect();
    // more than a socket takes, and less than what is too much
    let requests: Vec<u32> = (0..3).map(|_| deaf.start("return 'x'.repeat(1 << 20)")).collect();
    let mut other = sidecar.connect();
    eventually("all have run", SOON, || {
        let stats = other.stats();
        // an instance is given back when the answer is there
        stats.total_executions == 3 && stats.active_instances == 0
    });
    deaf.write_raw(&[0, 0, 0, 0]);
    std::thread::sleep(Duration::from_millis(500));
    for id in requests {
        assert_eq!(deaf.segment(id).value().as_str().map(str::len), Some(1 << 20));
    }
    let Some(Reply { id: 0, answer: Answer::Error(error) }) = deaf.next_reply() else { panic!("it is told why") };
    assert_eq!(error.code, ErrorCode::ProtocolError);
    assert!(deaf.is_closed());
}

// shows P-id-in-use
#[test]
fn an_id_that_is_in_use_ends_the_connection() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().patient().flag("max-instances", 1).listen();
    let mut client = sidecar.connect();
    let frame = encoded(5, &Run::source("for (;;);").message());
    client.write_raw(&frame);
    client.write_raw(&frame);
    let Some(Reply { id: 0, answer: Answer::Error(error) }) = client.next_reply() else { panic!("it is told") };
    assert_eq!(error.code, ErrorCode::ProtocolError);
    assert!(client.is_closed());
    let mut other = sidecar.connect();
    eventually("what it ran is stopped", SOON, || other.stats().active_instances == 0);
    other.still_works();
}

/// As much of an execute as is not answered yet.
fn begin_frame(client: &mut Client, id: u8, bytes: usize) -> bool {
    let part = vec![0xc0; MIB];
    client.stream().set_write_timeout(Some(SOON)).unwrap();
    let mut whole = client.write_raw(&(bytes as u32).to_le_bytes()) && client.write_raw(&[0x93, 0x02, id, 0x81]);
    for _ in 0..bytes / MIB {
        whole &= client.write_raw(&part[..MIB - 8]);
    }
    whole
}

// shows P-frames-share
#[test]
fn unfinished_frames_are_bounded_together_and_whoever_finds_no_room_is_told_and_goes_on() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().listen();
    let mut healthy = sidecar.connect();
    healthy.still_works();
    let before = private_bytes(sidecar.pid());
    let bytes = 60 * MIB;
    let count = 2 * MAX_TOTAL_QUEUED_BYTES as usize / bytes;
    let started = Instant::now();
    let mut peers: Vec<Client> = (0..count).map(|_| sidecar.connect()).collect();
    let mut held = 0;
    for peer in &mut peers {
        begin_frame(peer, 9, bytes);
        held = held.max(private_bytes(sidecar.pid()).saturating_sub(before));
    }
    println!("{} MiB for {} MiB in {:?}", held >> 20, (count * bytes) >> 20, started.elapsed());
    assert!(held <= MAX_TOTAL_QUEUED_BYTES + (MAX_TOTAL_QUEUED_BYTES >> 2), "{} MiB", held >> 20);
    healthy.still_works();
    // the last one found no room, is told so, and goes on when the rest of its frame has come
    let last = peers.last_mut().unwrap();
    let Answer::Result(refused) = last.wait(9) else { panic!("a request of its kind is answered in its form") };
    assert_eq!(refused.code(), ErrorCode::Overloaded);
    last.write_raw(&vec![0xc0; bytes - 4 - (bytes / MIB) * (MIB - 8)]);
    last.still_works();
    drop(peers);
    eventually("it is given back", SOON, || private_bytes(sidecar.pid()) < before + (64 << 20));
}

#[test]
fn what_answers_took_goes_back_to_the_system() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("max-instances", 4).listen();
    let mut first = sidecar.connect();
    first.still_works();
    until_complete(sidecar.pid());
    let before = LeakProbe::of(sidecar.pid()).rss_bytes;
    for _ in 0..2 {
        let mut clients: Vec<Client> = (0..8).map(|_| sidecar.connect()).collect();
        let ids: Vec<u32> = clients.iter_mut().map(|client| client.start("return 'x'.repeat(12 << 20)")).collect();
        for (client, id) in clients.iter_mut().zip(ids) {
            let _ = client.wait(id);
        }
    }
    eventually("memory goes back", SOON, || LeakProbe::of(sidecar.pid()).rss_bytes < before + (64 << 20));
}

fn is_served(sidecar: &Sidecar) -> bool {
    let path = sidecar.path().to_str().unwrap();
    let dir = TempDir::new();
    command(dir.path()).args(["ping", "--connect", path]).output().unwrap().status.success()
}

// shows P-operator-places
#[test]
fn in_a_full_house_the_sidecar_can_be_looked_after_and_no_more() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().flag("log", "error").listen();
    let mut crowd: Vec<Client> = (0..MAX_CONNECTIONS - OPERATOR_CONNECTIONS).map(|_| sidecar.connect()).collect();
    for _ in 0..2 * OPERATOR_CONNECTIONS {
        assert!(is_served(&sidecar));
    }
    let mut operator = sidecar.connect();
    operator.stats();
    operator.executions();
    operator.ping();
    let refused = operator.run("return 1");
    assert_eq!(refused.code(), ErrorCode::Overloaded);
    // others come as well; who has been there longest makes room, and is told why
    let mut later: Vec<Client> = (0..OPERATOR_CONNECTIONS).map(|_| sidecar.connect()).collect();
    let Some(Reply { id: 0, answer: Answer::Error(error) }) = operator.next_reply() else { panic!("it is told why") };
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(operator.is_closed());
    later.last_mut().unwrap().ping();
    crowd[0].still_works();
    drop(crowd);
    eventually("there is room for work again", SOON, || {
        let mut client = sidecar.connect();
        client.run("return 1").error.is_none()
    });
}

// shows P-arena-unopened
#[test]
fn segments_that_nobody_has_opened_leave_their_bytes_to_others() {
    let _w = Watchdog::seconds(120);
    let options = Options::new().flag("max-arena-bytes", 8 * MIB).flag("max-total-arena-bytes", 16 * MIB);
    let sidecar = options.listen();
    let make = |client: &mut Client| client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: 8 << 20 }));
    let mut idle: Vec<Client> = (0..2).map(|_| sidecar.connect()).collect();
    for client in &mut idle {
        assert!(matches!(make(client), Answer::Arena { name: Some(_), .. }));
    }
    let mut other = sidecar.connect();
    let Answer::Error(error) = make(&mut other) else { panic!("there is no room") };
    assert_eq!(error.code, ErrorCode::ResourceLimit);
    let patience = Duration::from_millis(ARENA_OPEN_TIMEOUT_MS) + SOON;
    eventually("there is room again", patience, || matches!(make(&mut other), Answer::Arena { name: Some(_), .. }));
    idle[0].still_works();
}
