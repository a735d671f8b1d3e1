//! Descriptors run out and come back: who is connected is served meanwhile, nobody spins, and afterwards everything works that
//! worked before. The limit of the running process is lowered, so that the kernel itself refuses.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nexus_protocol::message::OpenArena;
use nexus_protocol::{ClientMessage, ErrorCode};
use nexus_tests::leaks::settled_counts;
use nexus_tests::process::handlers_on_disk;
use nexus_tests::run::calling;
use nexus_tests::temp::TempDir;
use nexus_tests::{Answer, Client, Options, SOON, Sidecar, Watchdog, eventually};
use serde_json::json;

/// The limit of every other test.
const PLENTY: u64 = 4096;
/// How long they are gone: longer than anything waits before it tries again.
const GONE: Duration = Duration::from_millis(2_500);
/// Of a core, while there is nothing to do.
const IDLE_SHARE: f64 = 0.25;

fn set_limit(sidecar: &Sidecar, limit: u64) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &sidecar.pid().to_string(), &format!("--nofile={limit}:{PLENTY}")]);
    let status = prlimit.status().expect("prlimit, of util-linux");
    assert!(status.success(), "{status}");
}

/// From now on it can open so many more, until `give_back`.
fn leave(sidecar: &Sidecar, spare: u64) {
    let open: BTreeSet<u64> = fs::read_dir(format!("/proc/{}/fd", sidecar.pid()))
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut limit = 0;
    let mut free = 0;
    while free < spare || open.contains(&limit) {
        free += u64::from(!open.contains(&limit));
        limit += 1;
    }
    set_limit(sidecar, limit);
}

fn give_back(sidecar: &Sidecar) {
    set_limit(sidecar, PLENTY);
}

/// Processor time of all its threads, in ticks of a hundredth of a second. Source: proc(5), `/proc/PID/stat`.
fn cpu(sidecar: &Sidecar) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", sidecar.pid())).unwrap();
    let behind_name = stat.rsplit(") ").next().unwrap();
    let ticks: u64 = behind_name.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[track_caller]
fn assert_idle(sidecar: &Sidecar, when: &str) {
    let (before, started) = (cpu(sidecar), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    let share = (cpu(sidecar) - before).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(share < IDLE_SHARE, "{when}: it takes {share:.2} of a core to do nothing");
}

fn metric(client: &mut Client, series: &str) -> u64 {
    let text = client.metrics();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series}")).parse().expect("a number")
}

fn parked(client: &mut Client) -> u64 {
    metric(client, "nexus_suspensions{state=\"parked\"}")
}

fn hold(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.run_suspended(calling("return await $ext.a.b()")).call().id.clone()).collect()
}

/// A sidecar that has done each thing once, so that what it opens once is open.
fn start() -> (Watchdog, Sidecar, Client) {
    let watchdog = Watchdog::seconds(120);
    let sidecar = Options::new().patient().flag("max-instances", 2).listen();
    give_back(&sidecar);
    let mut client = sidecar.connect();
    client.set_patience(SOON);
    client.still_works();
    (watchdog, sidecar, client)
}

#[test]
fn who_is_connected_is_served_while_nobody_else_can_be() {
    for spare in 0..4 {
        let (_w, mut sidecar, mut client) = start();
        let before = settled_counts(sidecar.pid());
        leave(&sidecar, spare);
        // more than there are descriptors for, some at once and some when it is full already
        let mut others: Vec<UnixStream> = Vec::new();
        for _ in 0..2 {
            others.extend((0..6).map(|_| UnixStream::connect(sidecar.path()).unwrap()));
            for _ in 0..20 {
                client.still_works();
            }
        }
        assert_idle(&sidecar, "without descriptors");
        client.still_works();
        drop(others);
        assert_idle(&sidecar, "after they have gone");
        give_back(&sidecar);
        eventually("others are taken again", SOON, || sidecar.try_connect().is_some());
        assert_eq!(settled_counts(sidecar.pid()), before, "descriptors, threads");
        assert_idle(&sidecar, "when they are back");
        client.still_works();
        assert!(sidecar.is_running());
    }
}

#[test]
fn suspended_executions_are_parked_again_once_descriptors_are_back() {
    let (_w, sidecar, mut client) = start();
    leave(&sidecar, 0);
    let ids = hold(&mut client, 3);
    // those that wait are looked at meanwhile
    std::thread::sleep(GONE);
    give_back(&sidecar);
    let more = hold(&mut client, 3);
    eventually("all are parked", SOON, || parked(&mut client) == 6);
    for id in ids.iter().chain(&more) {
        assert_eq!(client.resume(id, &json!(7)).value(), 7);
    }
    client.still_works();
}

#[test]
fn handlers_are_kept_and_found_again_once_descriptors_are_back() {
    let _w = Watchdog::seconds(120);
    let cache = TempDir::new();
    let sidecar = Options::new().patient().flag("cache-dir", cache.path().display()).listen();
    give_back(&sidecar);
    let mut client = sidecar.connect();
    client.precompile("return 'before'").unwrap();
    eventually("it is written", SOON, || handlers_on_disk(cache.path()) == 1);
    leave(&sidecar, 0);
    for n in 0..5 {
        assert_eq!(client.run(format!("return {n}").as_str()).value(), n);
    }
    std::thread::sleep(GONE);
    give_back(&sidecar);
    client.precompile("return 'after'").unwrap();
    eventually("what comes later is written", SOON, || handlers_on_disk(cache.path()) >= 2);
}

#[test]
fn shared_memory_is_refused_by_name_and_made_once_descriptors_are_back() {
    let (_w, sidecar, mut client) = start();
    let make = ClientMessage::OpenArena(OpenArena::Make { bytes: 1 << 20 });
    leave(&sidecar, 0);
    match client.request(&make) {
        Answer::Error(error) => {
            assert!([ErrorCode::ResourceLimit, ErrorCode::InternalError].contains(&error.code), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    client.still_works();
    give_back(&sidecar);
    assert!(matches!(client.request(&make), Answer::Arena { name: Some(_), .. }));
    client.still_works();
}

/// Its code is loaded through a memory file, however few descriptors are left. What it needs for good is refused by name.
#[test]
fn the_stack_engine_starts_once_descriptors_are_back() {
    for spare in 0..6 {
        let (_w, sidecar, mut client) = start();
        let run = || calling("const r = $ext.a.b(); return r");
        leave(&sidecar, spare);
        let first = client.run(run());
        let refused = first.error.as_ref().map(|error| (error.code, error.retryable));
        // a file of the cache that is being written while they are counted leaves one more
        match refused {
            Some(refused) if spare < 2 => assert_eq!(refused, (ErrorCode::InternalError, true), "{first:?}"),
            refused => assert_eq!(refused, None, "{spare} left: {first:?}"),
        }
        client.still_works();
        give_back(&sidecar);
        let call = client.run_suspended(run()).call().id.clone();
        assert_eq!(client.resume(&call, &json!(3)).value(), 3, "{spare} left");
    }
}
