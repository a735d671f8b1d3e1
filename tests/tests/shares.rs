//! What connections share is not used up by those who take all they can: for each sum there is, some take until they are refused,
//! and whoever comes then is served all the same.

use std::time::Duration;

use nexus_protocol::message::{OpenArena, Regions, SnapshotState, Status};
use nexus_protocol::{ClientMessage, ContextValue, ErrorCode, WireError};
use nexus_tests::leaks::{niceness_of_workers, own_niceness, settled_rss_bytes};
use nexus_tests::run::{calling, pack};
use nexus_tests::{Answer, Client, LeakProbe, Options, Run, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

const MIB: usize = 1 << 20;
/// Connections that take all they can. With so many a reserve has parts left that are worth something.
const GREEDY: usize = 4;

fn greedy(sidecar: &Sidecar) -> Vec<Client> {
    (0..GREEDY).map(|_| sidecar.connect()).collect()
}

/// A refusal tells the limit, and whose it is.
#[track_caller]
fn assert_refused(error: &WireError, code: ErrorCode, resource: &str, limit: u64) {
    assert_eq!(error.code, code, "{error:?}");
    assert_eq!(error.context.get("resource"), Some(&ContextValue::Text(resource.into())), "{error:?}");
    assert_eq!(error.context.get("limit"), Some(&ContextValue::Number(limit)), "{error:?}");
    assert!(error.message.contains("reserve") && error.message.contains(resource), "{error:?}");
}

/// Suspends executions until one is refused: how many there are, and why there are not more.
fn suspend_all(client: &mut Client, run: &Run) -> (usize, WireError) {
    for count in 0.. {
        let segment = client.run(run.clone());
        if segment.status != Status::Suspended {
            return (count, segment.error().clone());
        }
    }
    unreachable!()
}

#[track_caller]
fn is_suspended_and_goes_on(client: &mut Client) {
    let first = client.run_suspended(calling("return await $ext.a.b()"));
    assert_eq!(client.resume(&first.call().id, &json!(7)).value(), 7);
}

// shows P-reserve
#[test]
fn suspended_executions() {
    const MAX: usize = 400;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-suspended", MAX).listen();
    let waiting = calling("return await $ext.a.b()");
    let mut crowd = greedy(&sidecar);
    let mut taken = Vec::new();
    for client in &mut crowd {
        let (count, error) = suspend_all(client, &waiting);
        assert_refused(&error, ErrorCode::ResourceLimit, "maxSuspended", MAX as u64);
        taken.push(count);
    }
    assert!(taken[0] == MAX && taken[1] >= taken[2] && taken[2] >= taken[3] && taken[3] > 0, "{taken:?}");
    is_suspended_and_goes_on(&mut sidecar.connect());
}

// shows P-reserve
#[test]
fn bytes_of_suspended_executions() {
    const MAX: usize = 16 * MIB;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-suspended-bytes", MAX).listen();
    let mut crowd = greedy(&sidecar);
    for client in &mut crowd {
        let mut last = None;
        for bytes in [2 * MIB, 200_000, 20_000, 2_000, 10] {
            let state = json!({"k": "x".repeat(bytes)});
            let holding = calling("const k = $state.k; await $ext.a.b(); return k").state(&state);
            last = Some(suspend_all(client, &holding).1);
        }
        assert_refused(&last.unwrap(), ErrorCode::ResourceLimit, "maxSuspendedBytes", MAX as u64);
    }
    is_suspended_and_goes_on(&mut sidecar.connect());
}

#[test]
fn memory_of_suspended_executions_that_are_too_large_even_when_they_are_packed() {
    let _w = Watchdog::seconds(180);
    let sidecar = Options::new().patient().flag("max-suspended-bytes", MIB).listen();
    let large = calling(
        "const all = []; for (let i = 0; i < 60000; i++) all.push({ i: Math.random() }); await $ext.a.b(); return all",
    );
    let mut one = sidecar.connect();
    let (count, error) = suspend_all(&mut one, &large);
    assert_refused(&error, ErrorCode::ResourceLimit, "maxSuspendedBytes", MIB as u64);
    assert!(count < 4, "{count} are held in 1 MiB");
    is_suspended_and_goes_on(&mut sidecar.connect());
}

// shows P-half-the-queue
#[test]
fn places_in_the_queue() {
    const MAX: usize = 80;
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 1).flag("max-queued", MAX).listen();
    let mut crowd = greedy(&sidecar);
    let mut watcher = sidecar.connect();
    for client in &mut crowd {
        let ids: Vec<u32> = (0..=MAX).map(|_| client.start("for (;;);")).collect();
        // the last one finds no place, whoever has them
        let refused = client.segment(*ids.last().unwrap());
        assert_eq!(refused.code(), ErrorCode::Overloaded, "{refused:?}");
    }
    assert!(watcher.stats().queued as usize >= MAX);
    let mut newcomer = sidecar.connect();
    let asked = newcomer.start("return 'served'");
    watcher.ping();
    drop(crowd);
    assert_eq!(newcomer.segment(asked).value(), "served");
}

/// As much of an execute as is not answered yet.
fn begin_frame(client: &mut Client, bytes: usize) {
    let part = vec![0xc0; 64 << 10];
    client.stream().set_write_timeout(Some(SOON)).unwrap();
    client.write_raw(&(bytes as u32).to_le_bytes());
    client.write_raw(&[0x93, 0x02, 9, 0x81]);
    for _ in 0..(bytes - 8) / part.len() {
        client.write_raw(&part);
    }
}

// shows P-reserve
#[test]
fn bytes_of_frames_that_are_not_finished() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().listen();
    let mut crowd = Vec::new();
    for (count, bytes) in
        [(9, 60 * MIB), (3, 30 * MIB), (3, 8 * MIB), (6, 2 * MIB), (8, 300 << 10), (8, 100 << 10), (8, 70 << 10)]
    {
        for _ in 0..count {
            let mut client = sidecar.connect();
            begin_frame(&mut client, bytes);
            crowd.push(client);
        }
    }
    let mut newcomer = sidecar.connect();
    newcomer.still_works();
    let args = json!("x".repeat(100_000));
    assert_eq!(newcomer.run(Run::source("return $args.length").args(&args)).value(), 100_000);
}

// shows P-reserve
#[test]
fn bytes_of_answers_that_are_not_read() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().listen();
    let mut newcomer = sidecar.connect();
    let idle = settled_rss_bytes(sidecar.pid());
    let own = newcomer.create_state(&json!({"k": "x".repeat(2 * MIB)}));
    let snapshot = |client: &mut Client, id: &str| {
        client.send(&ClientMessage::SnapshotState(SnapshotState { id, keys: None, regions: Regions::NONE }))
    };
    // four or five large ones find room, as it happens; those after them take what is left, and more
    let sizes = [50, 50, 50, 50, 50, 50, 4, 4];
    let mut crowd: Vec<(Client, String, usize)> = sizes
        .into_iter()
        .map(|mib| {
            let mut client = sidecar.connect();
            let id = client.create_state(&json!({"k": "x".repeat(mib * MIB)}));
            (client, id, mib)
        })
        .collect();
    let rss = || LeakProbe::of(sidecar.pid()).rss_bytes;
    let with_states = idle + (sizes.iter().sum::<usize>() * MIB) as u64;
    eventually("what the states came in is given back", SOON, || rss() < with_states + 60 * MIB as u64);
    for (client, id, mib) in &mut crowd {
        for _ in 0..if *mib > 4 { 1 } else { 3 } {
            snapshot(client, id);
        }
    }
    eventually("there are as many as there may be", SOON, || rss() > with_states + 200 * MIB as u64);
    for _ in 0..20 {
        let asked = snapshot(&mut newcomer, &own);
        match newcomer.wait(asked) {
            Answer::StateSnapshot { state, .. } => assert!(state.len() > 2 * MIB),
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(newcomer.run("return 'x'.repeat(100000)").value().as_str().map(str::len), Some(100_000));
}

// shows P-reserve
#[test]
fn bytes_of_resident_states() {
    const MAX: usize = 16 * MIB;
    let _w = Watchdog::seconds(60);
    let sidecar =
        Options::new().flag("max-state-bytes", 10 * MIB).flag("max-total-state-bytes", MAX).flag("max-states", 100_000);
    let sidecar = sidecar.listen();
    let mut crowd = greedy(&sidecar);
    for (number, client) in crowd.iter_mut().enumerate() {
        let fill = |bytes: usize| {
            let state = pack(&json!({"k": "x".repeat(bytes)}));
            loop {
                if let Err(error) = client.try_create_state(&state) {
                    return error;
                }
            }
        };
        let [.., error] = [2 * MIB, 200_000, 20_000, 2_000, 100].map(fill);
        if number > 0 {
            assert_refused(&error, ErrorCode::ResourceLimit, "maxTotalStateBytes", MAX as u64);
        }
    }
    let id = sidecar.connect().create_state(&json!({"k": "x".repeat(1_000)}));
    assert!(!id.is_empty());
}

// shows P-reserve
#[test]
fn bytes_of_shared_memory() {
    let _w = Watchdog::seconds(60);
    let options = Options::new().flag("max-arena-bytes", 32 * MIB).flag("max-total-arena-bytes", 64 * MIB);
    let sidecar = options.listen();
    let make = |client: &mut Client, bytes: usize| {
        client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: bytes as u64 }))
    };
    let mut crowd = greedy(&sidecar);
    for client in &mut crowd {
        let taken = [32, 16, 8, 4, 2, 1].into_iter().find(|mib| !matches!(make(client, mib * MIB), Answer::Error(_)));
        assert!(taken.is_some());
    }
    let Answer::Error(error) = make(&mut sidecar.connect(), 32 * MIB) else { panic!("there is not so much") };
    assert_refused(&error, ErrorCode::ResourceLimit, "maxTotalArenaBytes", 64 * MIB as u64);
    assert!(matches!(make(&mut sidecar.connect(), MIB), Answer::Arena { .. }));
}

// shows P-half-the-instances
#[test]
fn instances_of_one_that_was_alone() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut alone = sidecar.connect();
    let loops: Vec<u32> = (0..10).map(|_| alone.start("for (;;);")).collect();
    eventually("it runs what it may", SOON, || alone.stats().active_instances >= 3);
    assert_eq!(sidecar.connect().run(Run::source("return 'served'").timeout_ms(20_000)).value(), "served");
    for id in loops {
        assert!(alone.cancel_request(id));
    }
}

// shows P-half-the-instances
#[test]
fn instances_of_as_many_as_there_are() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut crowd: Vec<Client> = (0..8).map(|_| sidecar.connect()).collect();
    // what each does shows by its first run: some tenths of a second count for some tens
    let first: Vec<u32> = crowd.iter_mut().map(|client| client.start("for (let i = 0; i < 2e7; i++);")).collect();
    for (client, id) in crowd.iter_mut().zip(first) {
        assert!(client.segment(id).error.is_none());
    }
    for client in &mut crowd {
        client.start("for (;;);");
    }
    let mut newcomer = sidecar.connect();
    eventually("all but one instance are taken", SOON, || newcomer.stats().active_instances >= 3);
    for _ in 0..20 {
        for client in [&mut newcomer, &mut sidecar.connect()] {
            assert_eq!(client.run(Run::source("return 'served'").timeout_ms(20_000)).value(), "served");
        }
    }
    assert_eq!((newcomer.stats().active_instances, newcomer.stats().queued), (3, 5));
}

// shows P-goes-on-beside
#[test]
fn instances_of_those_of_whom_nobody_knows_anything_yet() {
    let _w = Watchdog::seconds(180);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut known = sidecar.connect();
    assert_eq!(known.run("return 'served'").value(), "served");
    let mut crowd: Vec<Client> = (0..5).map(|_| sidecar.connect()).collect();
    let mut loops: Vec<u32> = crowd.iter_mut().map(|client| client.start("for (;;);")).collect();
    crowd.iter_mut().for_each(Client::ping);
    // whoever comes is served, though three run what never ends, and two more were lent the last instance
    assert_eq!(sidecar.connect().run("return 'served'").value(), "served");
    // who comes for each of its runs anew is no better
    crowd.push(sidecar.connect());
    loops.push(crowd[5].start("for (;;);"));
    crowd[5].ping();
    assert_eq!(sidecar.connect().run("return 'served'").value(), "served");
    assert!(crowd[5].cancel_request(loops[5]));
    assert_eq!(crowd[5].segment(loops[5]).code(), ErrorCode::Cancelled);
    crowd.pop();
    loops.pop();
    // one that takes its time goes on, is told once, and finds its state as it left it
    let state = known.create_state(&serde_json::json!({ "n": 0 }));
    let long = "$state.n = $state.n + 1; for (let i = 0; i < 4e7; i++); $emit('e', 1); $log('l'); return $state.n";
    let grants = ["events:emit:*", "state:read:n", "state:write:n"];
    let asked = known.start(Run::source(long).grant(&grants).resident(&state).timeout_ms(0));
    let mut brief = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(brief.run("return 'served'").value(), "served");
    }
    let segment = known.segment(asked);
    assert_eq!(segment.value(), 1);
    for told in [&segment.events, &segment.logs, &segment.mutations] {
        assert_eq!(told.as_array().map(Vec::len), Some(1), "{segment:?}");
    }
    for (client, id) in crowd.iter_mut().zip(loops) {
        assert!(client.cancel_request(id));
        assert_eq!(client.segment(id).code(), ErrorCode::Cancelled);
    }
    eventually("all is over", SOON, || known.stats().active_instances == 0);
}

// shows P-begins-again
#[test]
fn instances_of_those_that_take_longer_than_there_is_room_beside() {
    let _w = Watchdog::seconds(180);
    let sidecar = Options::new().patient().flag("max-instances", 4).listen();
    let mut watcher = sidecar.connect();
    // three run, four go on beside them, and the others have nowhere to go on
    let mut crowd: Vec<Client> = (0..12).map(|_| sidecar.connect()).collect();
    let loops: Vec<u32> = crowd.iter_mut().map(|client| client.start("for (;;);")).collect();
    let mut late = sidecar.connect();
    let state = late.create_state(&json!({ "n": 0 }));
    let long = "$state.n = $state.n + 1; for (let i = 0; i < 3e7; i++); $emit('e', 1); return $state.n";
    let grants = ["events:emit:*", "state:read:n", "state:write:n"];
    let asked = late.start(Run::source(long).grant(&grants).resident(&state).timeout_ms(0));
    let mut known = sidecar.connect();
    for _ in 0..20 {
        for client in [&mut known, &mut sidecar.connect()] {
            assert_eq!(client.run(Run::source("return 'served'").timeout_ms(20_000)).value(), "served");
        }
    }
    eventually("as many wait as have no place", SOON, || watcher.stats().queued == 6);
    // who has begun several times has done it once
    for (client, id) in crowd.iter_mut().zip(loops) {
        assert!(client.cancel_request(id));
        assert_eq!(client.segment(id).code(), ErrorCode::Cancelled);
    }
    let segment = late.segment(asked);
    assert_eq!((segment.value(), segment.events.as_array().map(Vec::len)), (json!(1), Some(1)));
    assert_eq!(late.run(Run::source("return $state.n").grant(&grants).resident(&state)).value(), 1);
    eventually("all is over", SOON, || watcher.stats().active_instances == 0);
    // on a machine that is busy some of the crowd were cancelled before they began for the first time
    let counted = watcher.stats().total_executions;
    assert!((40 + 2..=12 + 40 + 2).contains(&counted), "each is counted once: {counted}");
}

// shows P-gives-way
#[test]
fn what_takes_its_time_gives_way_to_others_and_whoever_runs_it_comes_to_the_front_again() {
    let _w = Watchdog::seconds(120);
    for options in [Options::new(), Options::new().without_priorities()] {
        let sidecar = options.patient().flag("max-instances", 4).listen();
        let mut computing = sidecar.connect();
        let front = own_niceness();
        let behind = || niceness_of_workers(sidecar.pid()).into_iter().filter(|niceness| *niceness > front).count();
        let alone = computing.run("for (let i = 0; i < 3e7; i++);");
        assert!(alone.error.is_none() && behind() == 0, "there is nobody to give way to: {alone:?}");
        let mut other = sidecar.connect();
        for _ in 0..3 {
            let endless = computing.start("for (;;);");
            eventually("it gives way", SOON, || behind() == 1);
            assert_eq!(other.run("return 'served'").value(), "served");
            assert!(computing.cancel_request(endless));
            assert_eq!(computing.segment(endless).code(), ErrorCode::Cancelled);
            eventually("nobody gives way any more", SOON, || behind() == 0);
            eventually("there are as many workers as before", SOON, || niceness_of_workers(sidecar.pid()).len() == 5);
        }
        computing.still_works();
    }
}

// shows P-child-has-all
#[test]
fn a_parent_has_all_instances() {
    let _w = Watchdog::seconds(60);
    let (_sidecar, mut parent) = Options::new().patient().flag("max-instances", 4).child();
    for _ in 0..6 {
        parent.start("for (;;);");
    }
    eventually("it runs as much as there may be", SOON, || parent.stats().active_instances == 4);
}

#[test]
fn handlers_in_the_compile_cache() {
    let _w = Watchdog::seconds(240);
    let sidecar = Options::new().patient().flag("cache-dir", "none").flag("max-cache-size-bytes", 4 * MIB).listen();
    let (mut quiet, mut crowd) = (sidecar.connect(), (0..8).map(|_| sidecar.connect()).collect::<Vec<Client>>());
    let handles: Vec<Vec<u8>> = (0..20).map(|n| quiet.precompile(&format!("return {n}")).unwrap()).collect();
    // each of them stays below a quarter, and all together compile more than twice of what there is
    for n in 0..4 {
        for (number, client) in crowd.iter_mut().enumerate() {
            client.precompile(&format!("return [{}{n}, {number}]", ",".repeat(300_000))).unwrap();
        }
    }
    for (n, handle) in handles.iter().enumerate() {
        assert_eq!(quiet.run(Run::handle(handle)).value(), n);
    }
    assert!(sidecar.connect().stats().cache_size_bytes <= 4 * MIB as u64);
}
