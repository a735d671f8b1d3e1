//! Ends without a word: kill -9 of the sidecar and of its clients at any moment, and coming and going in great numbers. What
//! is counted before is counted afterwards. `NEXUS_KILLS=n`: so many cycles instead of the few of the gate.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nexus_protocol::message::{OpenArena, Status};
use nexus_protocol::{ClientMessage, RequestId};
use nexus_tests::leaks::{names_in_shm, settled_counts};
use nexus_tests::run::calling;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, LeakProbe, Options, Rng, Run, SOON, Sidecar, Watchdog, eventually, number, trials};
use nix::sys::signal::Signal;
use serde_json::json;

const SEED: u64 = 0x6b69_6c6c;

/// Each instance would leave some, and there are hundreds; the C library may give a thread an arena of its own at any time.
const SPARE_MAPS: usize = 32;
/// Of RSS, for each instance that was made and destroyed, in the median tenth of a long run.
const MAX_SLOPE_BYTES: i64 = 64;

fn cycles(few: usize) -> usize {
    number("NEXUS_KILLS", few as u64) as usize
}

/// Has all that a sidecar does under way: sources that are new, suspensions, resident states, a segment that has its name.
fn busy(client: &mut Client, rng: &mut Rng) {
    let mut out = Vec::new();
    let arena = ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 });
    arena.encode(RequestId(900_000), 1 << 20, &mut out).unwrap();
    client.write_raw(&out);
    for n in 0..30 {
        let source = match rng.below(4) {
            0 => format!("return {n} + {}", rng.below(1 << 30)),
            1 => format!("await $ext.a.b(); return {n}"),
            2 => "for (let i = 0; i < 1e5; i++); return 'ran'".to_owned(),
            // known to all cycles: read from the cache
            _ => format!("return {} * 2", rng.below(20)),
        };
        if client.try_start(calling(source)).is_none() {
            return;
        }
    }
}

/// A torn entry would be removed and counted when it is read; an accepted one would give another value.
fn the_cache_is_whole(sidecar: &Sidecar) {
    let mut client = sidecar.connect();
    for n in 0..20 {
        assert_eq!(client.run(calling(format!("return {n} * 2"))).value(), n * 2);
    }
    let metrics = client.metrics();
    let rejected = metrics.lines().find_map(|line| line.strip_prefix("nexus_cache_rejected_total "));
    assert_eq!(rejected, Some("0"));
}

fn start_on(path: &Path, cache: &Path) -> (Sidecar, Duration) {
    let began = Instant::now();
    let sidecar = Options::new().flag("max-instances", 2).flag("cache-dir", cache.display()).listen_on(path);
    sidecar.wait_until_ready();
    // the socket is there before the engine
    sidecar.connect().ping();
    (sidecar, began.elapsed())
}

#[test]
fn a_sidecar_that_is_killed_at_any_moment_leaves_nothing_that_stops_the_next_one() {
    let cycles = cycles(50);
    let _w = Watchdog::seconds(60 + 2 * cycles as u64);
    let (dir, mut rng) = (TempDir::new(), Rng::new(SEED));
    let (path, cache) = (dir.join("s.sock"), dir.join("cache"));
    let (mut starts, mut settled) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..cycles {
        let (mut sidecar, took) = start_on(&path, &cache);
        starts.push(took);
        if let Some(dead) = last {
            assert_eq!(names_in_shm(dead), 0, "the next start removes what the dead one left");
        }
        the_cache_is_whole(&sidecar);
        let mut client = sidecar.connect();
        client.create_state(&json!({"n": 1}));
        busy(&mut client, &mut rng);
        std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
        let killed = Instant::now();
        sidecar.signal(Signal::SIGKILL);
        // every answer that comes is whole; then the connection ends
        while client.next_reply().is_some() {}
        settled.push(killed.elapsed());
        sidecar.kill();
        last = Some(sidecar.pid());
    }
    let (sidecar, _) = start_on(&path, &cache);
    the_cache_is_whole(&sidecar);
    assert_eq!(last.map(names_in_shm), Some(0));
    println!(
        "{cycles} sidecars were killed; ready after {}; the connection's end came after {}",
        spread(starts),
        spread(settled)
    );
}

fn spread(mut taken: Vec<Duration>) -> String {
    taken.sort();
    format!("{:?} at the median, {:?} at most", taken[taken.len() / 2], taken[taken.len() - 1])
}

/// Everything that a connection can hold, as counted from outside.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    counts: (usize, usize),
    suspended: u64,
    states: (u64, u64),
    arena_bytes: u64,
    names: usize,
}

fn held(sidecar: &Sidecar, watcher: &mut Client) -> Held {
    let stats = watcher.stats();
    Held {
        counts: LeakProbe::of(sidecar.pid()).counts(),
        suspended: stats.suspended_instances + stats.active_instances + stats.queued,
        states: (stats.resident_states, stats.resident_state_bytes),
        arena_bytes: stats.arena_bytes,
        names: names_in_shm(sidecar.pid()),
    }
}

/// Goes, as a process that is killed goes: with the frame half written, with answers unread, with things held.
fn vanish(sidecar: &Sidecar, rng: &mut Rng) {
    let mut client = sidecar.connect();
    for _ in 0..rng.below(4) {
        client.create_state(&json!({"large": "x".repeat(rng.below(10_000))}));
        let segment = client.run(calling("return await Promise.all([$ext.a.b(), $ext.a.c()])"));
        assert_eq!(segment.status, Status::Suspended);
    }
    if rng.below(2) == 0 {
        let answer = client.request(&ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 }));
        assert!(matches!(answer, Answer::Arena { .. }), "{answer:?}");
    }
    match rng.below(4) {
        0 => {
            let mut frame = Vec::new();
            let run = Run::source("return 1").args(&json!("y".repeat(100_000)));
            run.message().encode(RequestId(800_000), 1 << 20, &mut frame).unwrap();
            frame.truncate(1 + rng.below(frame.len() - 1));
            client.write_raw(&frame);
        }
        1 => {
            for _ in 0..10 {
                client.start(calling("return 'z'.repeat(100000)"));
            }
        }
        2 => {
            client.start(Run::source("for (;;);").timeout_ms(10_000));
        }
        _ => {
            let segment = client.run(calling("for (;;) await $ext.a.b()"));
            client.start_resume(&segment.call().id.clone(), &json!(1));
        }
    }
}

#[test]
fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let cycles = cycles(100);
    let _w = Watchdog::seconds(60 + cycles as u64);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let (mut watcher, mut rng) = (sidecar.connect(), Rng::new(SEED));
    for _ in 0..10 {
        vanish(&sidecar, &mut rng);
    }
    eventually("all is quiet", SOON, || watcher.stats().suspended_instances == 0);
    settled_counts(sidecar.pid());
    let before = held(&sidecar, &mut watcher);
    assert_eq!((before.suspended, before.states, before.arena_bytes, before.names), (0, (0, 0), 0, 0));
    let mut taken = Vec::new();
    for _ in 0..cycles {
        vanish(&sidecar, &mut rng);
        let gone = Instant::now();
        eventually("everything of it is gone", SOON, || held(&sidecar, &mut watcher) == before);
        taken.push(gone.elapsed());
    }
    watcher.still_works();
    println!("{cycles} clients vanished; all is as before after {}: {before:?}", spread(taken));
}

#[test]
fn a_thousand_connections_come_and_go() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().listen();
    sidecar.connect().still_works();
    let before = settled_counts(sidecar.pid());
    for n in 0..1000 {
        let mut stream = UnixStream::connect(sidecar.path()).unwrap();
        match n % 4 {
            0 => drop(sidecar.connect()),
            1 => stream.write_all(&[0xff; 7]).unwrap(),
            2 => stream.write_all(&[0, 0]).unwrap(),
            _ => {}
        }
    }
    sidecar.connect().still_works();
    assert_eq!(settled_counts(sidecar.pid()), before, "descriptors, threads");
}

#[test]
fn a_thousand_instances_are_made_and_destroyed() {
    let _w = Watchdog::seconds(240 + trials(200) as u64 / 10);
    let sidecar = Options::new().flag("max-instances", 1).listen();
    let mut client = sidecar.connect();
    // only a kill within a builtin takes the memory away, and with it the instance
    let kill = Run::source("return (3n ** 9000000n).toString().length").timeout_ms(5);
    let killed = |client: &mut Client, times: u64| {
        let before = client.stats().instances_created;
        while client.stats().instances_created < before + times {
            assert!(client.run(kill.clone()).error.is_some());
            client.still_works();
        }
    };
    killed(&mut client, 20);
    let maps = || {
        settled_counts(sidecar.pid());
        LeakProbe::of(sidecar.pid())
    };
    let before = maps();
    let each = trials(200).div_ceil(10) as u64;
    let (mut last, mut slopes) = (before, Vec::new());
    for tenth in 1..=10 {
        killed(&mut client, each);
        let now = maps();
        let more = now.rss_bytes as i64 - last.rss_bytes as i64;
        println!("{} instances: {more} bytes more, {} for each", tenth * each, more / each as i64);
        slopes.push(more / each as i64);
        last = now;
    }
    assert_eq!(last.counts(), before.counts(), "descriptors, threads");
    let maps = last.maps.saturating_sub(before.maps);
    assert!(maps <= SPARE_MAPS, "{maps} maps more");
    // of few it would be what the allocator rounds to
    slopes.sort_unstable();
    assert!(each < 1_000 || slopes[slopes.len() / 2] <= MAX_SLOPE_BYTES, "{slopes:?} bytes for each instance");
}
