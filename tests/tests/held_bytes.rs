//! What a peer can make the sidecar hold: for each kind of bytes, memory against the limit that counts them. A limit may be
//! exceeded by the copies that are under way (one for each worker), not by what a client chooses to send or to leave unread.

use std::time::{Duration, Instant};

use nexus_protocol::limits::{MAX_QUEUED_BYTES, MAX_UNREAD_BYTES};
use nexus_protocol::message::{Regions, Resolution, Resume, SnapshotState, Status, SuspendMode};
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::leaks::until_complete;
use nexus_tests::run::{calling, pack};
use nexus_tests::{Answer, Client, LeakProbe, Options, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

const MIB: u64 = 1 << 20;
/// Workers, of which each may have a copy or two of what it works on.
const INSTANCES: u64 = 2;
/// What allocators and everything that is not the subject may take.
const BESIDE: u64 = 48 * MIB;
/// Memory that has not grown for this long will not.
const STEADY: Duration = Duration::from_millis(1_500);
/// Of a write to somebody who reads no more.
const PATIENCE: Duration = Duration::from_millis(500);

fn rss(sidecar: &Sidecar) -> u64 {
    LeakProbe::of(sidecar.pid()).rss_bytes
}

/// What it has before anything is asked of it.
fn base(sidecar: &Sidecar) -> u64 {
    until_complete(sidecar.pid());
    rss(sidecar)
}

/// The most memory that it takes until it takes no more.
fn peak(sidecar: &Sidecar) -> u64 {
    let (mut most, mut since) = (rss(sidecar), Instant::now());
    let until = Instant::now() + SOON;
    while since.elapsed() < STEADY && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
        let now = rss(sidecar);
        if now > most + MIB {
            (most, since) = (now, Instant::now());
        }
    }
    most
}

#[track_caller]
fn assert_held(what: &str, held: u64, limit: u64) {
    println!("{what}: {} MiB held, {} MiB are the limit", held / MIB, limit / MIB);
    assert!(held <= limit, "{what}: {} MiB held, {} MiB are the limit", held / MIB, limit / MIB);
}

/// The unfinished writes of a client that is not read from are no failure of the test.
fn write_what_is_taken(client: &mut Client, bytes: &[u8]) -> bool {
    client.stream().set_write_timeout(Some(PATIENCE)).unwrap();
    client.write_raw(bytes)
}

fn snapshot(client: &mut Client, id: &str) -> u32 {
    client.send(&ClientMessage::SnapshotState(SnapshotState { id, keys: None, regions: Regions::NONE }))
}

#[test]
fn answers_that_nobody_reads_are_not_made_for_ever() {
    const STATE: u64 = 8 * MIB;
    const ASKED: u64 = 40;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", INSTANCES).listen();
    let mut deaf = sidecar.connect();
    let id = deaf.create_state(&json!({"large": "x".repeat(STATE as usize - 1024)}));
    let before = base(&sidecar);
    let ids: Vec<u32> = (0..ASKED).map(|_| snapshot(&mut deaf, &id)).collect();
    let held = peak(&sidecar).saturating_sub(before);
    // what may be unread, one more answer, and two copies for each that makes one
    let limit = MAX_UNREAD_BYTES as u64 + STATE + INSTANCES * 2 * STATE + BESIDE;
    assert_held("unread snapshots", held, limit);
    let mut other = sidecar.connect();
    other.still_works();
    // who reads late gets everything all the same
    for id in ids {
        let answer = deaf.wait(id);
        assert!(matches!(&answer, Answer::StateSnapshot { state, .. } if state.len() as u64 > STATE - 2048));
    }
}

// shows P-unread
#[test]
fn results_that_nobody_reads_are_not_made_for_ever() {
    const RESULT: u64 = 4 * MIB;
    const ASKED: u64 = 80;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", INSTANCES).listen();
    let mut deaf = sidecar.connect();
    deaf.run(format!("return 'x'.repeat({RESULT})").as_str());
    let before = base(&sidecar);
    let ids: Vec<u32> = (0..ASKED).map(|_| deaf.start(format!("return 'x'.repeat({RESULT})").as_str())).collect();
    let held = peak(&sidecar).saturating_sub(before);
    // a guest's own memory comes beside it: its heap grows with the text, and is given back
    let limit = MAX_UNREAD_BYTES as u64 + RESULT + INSTANCES * 6 * RESULT + BESIDE;
    assert_held("unread results", held, limit);
    sidecar.connect().still_works();
    for id in ids {
        assert_eq!(deaf.segment(id).value.map(|value| value.len() as u64 >= RESULT), Some(true));
    }
}

#[test]
fn answers_of_calls_that_wait_for_their_execution_count_as_queued() {
    const VALUE: u64 = 8 * MIB;
    const CALLS: u64 = 60;
    let _w = Watchdog::seconds(180);
    let options = Options::new().patient().flag("max-instances", INSTANCES);
    let sidecar = options.listen();
    let mut client = sidecar.connect();
    let mut watcher = sidecar.connect();
    // goes on for ever with the first answer, while the others come
    let source = "const all = Array.from({ length: $args }, () => $ext.a.b()); await all[0]; for (;;);";
    let first = client.run_suspended(calling(source).args(&json!(CALLS)).suspend_mode(SuspendMode::Await));
    assert_eq!(first.calls.len() as u64, CALLS);
    let before = base(&sidecar);
    let running = client.start_resume(&first.calls[0].id, &json!(1));
    eventually("it runs", SOON, || watcher.stats().active_instances == 1);
    let value = pack(&json!("x".repeat(VALUE as usize)));
    let mut ids = Vec::new();
    let mut frame = Vec::new();
    for (number, call) in (1_000..).zip(&first.calls[1..]) {
        frame.clear();
        let resume = Resume::new(&call.id, Resolution::Value(Some(&value)));
        ClientMessage::Resume(resume).encode(nexus_protocol::RequestId(number), 64 << 20, &mut frame).unwrap();
        if !write_what_is_taken(&mut client, &frame) {
            break;
        }
        ids.push(number);
    }
    let held = peak(&sidecar).saturating_sub(before);
    assert_held("waiting answers", held, MAX_QUEUED_BYTES + (INSTANCES + 1) * VALUE + BESIDE);
    watcher.still_works();
    // one that was not read to its end ends the connection, and else each is answered once
    if ids.len() as u64 == CALLS - 1 {
        watcher.ping();
        let mut refused = 0;
        assert!(client.cancel_request(running));
        assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
        for id in ids {
            match client.segment(id).code() {
                ErrorCode::Overloaded => refused += 1,
                ErrorCode::SuspensionError | ErrorCode::Cancelled => {}
                code => panic!("{code:?}"),
            }
        }
        assert!(refused > 0, "{CALLS} answers of {VALUE} bytes are more than may wait");
    }
}

// shows P-frames-share
#[test]
fn frames_that_are_not_finished_share_a_limit() {
    const FRAME: u64 = 60 * MIB;
    const PEERS: usize = 16;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().listen();
    let mut healthy = sidecar.connect();
    healthy.still_works();
    let before = base(&sidecar);
    let mut peers: Vec<Client> = (0..PEERS).map(|_| sidecar.connect()).collect();
    let part = vec![0x93; MIB as usize];
    let (mut written, mut held) = (0, 0);
    for peer in &mut peers {
        // an execute of which one byte is left out
        peer.write_raw(&(FRAME as u32 + 5).to_le_bytes());
        peer.write_raw(&[0x93, 0x02, 5, 0x81]);
        for _ in 0..FRAME / MIB {
            if !write_what_is_taken(peer, &part) {
                break;
            }
            written += MIB;
        }
        held = held.max(rss(&sidecar).saturating_sub(before));
    }
    println!("{} MiB were taken", written / MIB);
    // what may wait as whole frames may wait as parts of them, with one that grows into a larger buffer
    assert_held("parts of frames", held, 2 * MAX_QUEUED_BYTES + FRAME + BESIDE);
    healthy.still_works();
    assert_eq!(healthy.run(Run::source("return $args.length").args(&json!("x".repeat(1 << 20)))).value(), 1 << 20);
    drop(peers);
    eventually("it is given back", SOON, || rss(&sidecar) <= before + BESIDE);
}

// shows P-state-old-versions
#[test]
fn old_versions_of_a_state_are_counted_with_all_that_they_keep() {
    const KEYS: usize = 100_000;
    const VERSIONS: usize = 24;
    /// Far enough from each other that each is in a part of the state of its own.
    const EVERY: usize = 60;
    let _w = Watchdog::seconds(180);
    let options = Options::new().patient().flag("max-instances", 1);
    let sidecar = options.listen();
    let mut client = sidecar.connect();
    let state: serde_json::Map<_, _> = (0..KEYS).map(|n| (format!("key{n:06}"), json!(n))).collect();
    let id = client.create_state(&json!(state));
    let (before, counted_before) = (base(&sidecar), client.stats().resident_state_bytes);
    for version in 0..VERSIONS {
        // an execution that sees this version, and holds it
        let segment = client.run(calling("return await $ext.a.b()").resident(&id));
        assert_eq!(segment.status, Status::Suspended, "{segment:?}");
        let set: serde_json::Map<_, _> =
            (version % EVERY..KEYS).step_by(EVERY).map(|n| (format!("key{n:06}"), json!(n + version))).collect();
        match client.patch_state(&id, &json!(set), &[], None) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.code, ErrorCode::ResourceLimit, "{error:?}"),
        }
    }
    let grown = peak(&sidecar).saturating_sub(before);
    let counted = client.stats().resident_state_bytes - counted_before;
    assert!(counted > 0);
    assert_held("old versions", grown, 2 * counted + BESIDE / 6);
}

/// Bytes that nothing makes smaller, in the guest of an execution that waits.
fn waiting_with(bytes: u64) -> Run {
    let source = "const b = new Uint8Array($args); let x = 1;
        for (let i = 0; i < b.length; i++) { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; b[i] = x }
        await $ext.a.b(); return b.length";
    calling(source).args(&json!(bytes))
}

// shows P-suspended-memory
#[test]
fn the_memory_of_suspended_guests_counts_whether_they_are_packed_or_not() {
    const EACH: u64 = 4 * MIB;
    const LIMIT: u64 = 24 * MIB;
    let _w = Watchdog::seconds(300);
    let sidecar = Options::new().patient().flag("max-instances", INSTANCES).flag("max-suspended-bytes", LIMIT).listen();
    let mut client = sidecar.connect();
    client.still_works();
    let before = rss(&sidecar);
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let segment = client.run(waiting_with(EACH));
        match segment.status {
            Status::Suspended => held.push(segment.call().id.clone()),
            _ => {
                assert_eq!(segment.code(), ErrorCode::ResourceLimit, "{segment:?}");
                refused += 1;
            }
        }
        // those that are at work have their own memory, and a copy of it while it is packed
        let now = rss(&sidecar).saturating_sub(before);
        assert_held("suspended guests", now, LIMIT + INSTANCES * 3 * EACH + BESIDE);
    }
    assert!(held.len() >= 4 && refused >= 10, "{} are held, {refused} were refused", held.len());
    let told = client.stats().total_memory_bytes;
    let counted = held.len() as u64 * EACH;
    assert!(told >= counted && told <= 2 * counted + BESIDE, "{told} are told, and guests have {counted}");
    for id in held {
        assert_eq!(client.resume(&id, &json!(null)).value(), json!(EACH));
    }
    assert!(client.stats().total_memory_bytes < counted, "what is over is not counted");
}
