//! Sealed processes that cannot be made, that nobody needs, or that stand still: none of that is the trouble of anybody else.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nexus_protocol::limits::{FRAME_READ_TIMEOUT_MS, MAX_SILENT_CONNECTIONS};
use nexus_tests::client::Client;
use nexus_tests::leaks::{is_alive, settled_counts, workers_of};
use nexus_tests::process::{binary, send_signal};
use nexus_tests::temp::TempDir;
use nexus_tests::{Options, SOON, Sidecar, Watchdog, eventually};
use nix::sys::signal::Signal;

/// Returns when none of its threads runs any more.
fn stop(pid: u32) {
    send_signal(pid, Signal::SIGSTOP);
    eventually("it stands still", SOON, || {
        let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    });
}

fn descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn limit_descriptors(pid: u32, limit: usize) {
    let limit = format!("--nofile={limit}:4096");
    assert!(Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap().success());
}

/// What somebody hears who connects and begins to speak, unless told before.
fn answer(sidecar: &Sidecar) -> String {
    let mut client = sidecar.connect_silently();
    client.set_patience(SOON);
    client.write_raw(&[0x40, 0, 0, 0]);
    format!("{:?}", client.next_reply().unwrap())
}

fn eventually_served(sidecar: &Sidecar) {
    eventually("somebody is served", SOON, || {
        let served = sidecar.try_connect();
        served.map(|mut client| client.still_works()).is_some()
    });
}

// ---- none can be made ----

#[test]
fn where_no_process_can_be_made_who_is_there_is_served_and_who_comes_is_told() {
    let _w = Watchdog::seconds(240);
    let dir = TempDir::new();
    let tmp = dir.join("tmp");
    fs::create_dir(&tmp).unwrap();
    let mut sidecar = Options::new().worker_each(8).env("TMPDIR", tmp.to_str().unwrap()).listen();
    type Way<'a> = (&'a dyn Fn(u32), &'a dyn Fn(u32));
    let ways: [Way<'_>; 2] = [
        (&|_| fs::remove_dir_all(&tmp).unwrap(), &|_| fs::create_dir(&tmp).unwrap()),
        (&|pid| limit_descriptors(pid, descriptors_of(pid) + 2), &|pid| limit_descriptors(pid, 4096)),
    ];
    for (break_it, mend_it) in ways {
        let mut client = sidecar.connect();
        eventually("another one stands ready", SOON, || workers_of(sidecar.pid()).len() == 2);
        client.still_works();
        break_it(sidecar.pid());
        // the one that stands ready is somebody's, or is it not: then there is none
        let mut last = sidecar.try_connect();
        for _ in 0..3 {
            let told = answer(&sidecar);
            let why = told.contains("workers is") || told.contains("descriptors is");
            assert!(told.contains("Overloaded") && why, "{told}; {}", sidecar.stderr());
        }
        client.still_works();
        last.iter_mut().for_each(Client::still_works);
        mend_it(sidecar.pid());
        drop(last);
        eventually_served(&sidecar);
        assert!(sidecar.is_running());
    }
    let told = sidecar.stderr();
    assert!(!told.contains("panicked") && told.contains("no other worker can be made"), "{told}");
}

#[test]
fn a_process_that_all_share_and_that_cannot_be_followed_is_followed_once_it_can() {
    let _w = Watchdog::seconds(240);
    let mut sidecar = Options::new().flag("isolation", "shared").listen();
    sidecar.connect().still_works();
    eventually("another one stands ready", SOON, || workers_of(sidecar.pid()).len() == 2);
    // for connections and their copies, and not for what a process is made of
    limit_descriptors(sidecar.pid(), descriptors_of(sidecar.pid()) + 12);
    for worker in workers_of(sidecar.pid()) {
        sidecar.connect().still_works();
        send_signal(worker, Signal::SIGKILL);
        eventually("it is gone", SOON, || !is_alive(worker));
        eventually("and reaped", SOON, || !workers_of(sidecar.pid()).contains(&worker));
    }
    eventually("who comes is told", SOON, || answer(&sidecar).contains("Overloaded"));
    limit_descriptors(sidecar.pid(), 4096);
    eventually_served(&sidecar);
    assert!(sidecar.is_running() && !sidecar.stderr().contains("panicked"), "{}", sidecar.stderr());
}

// ---- nobody needs one ----

// shows P-slow-frames
#[test]
fn whoever_says_nothing_or_half_of_hello_takes_no_place_for_longer_than_hello_may_take() {
    let _w = Watchdog::seconds(240);
    let sidecar = Options::new().worker_each(1).listen();
    let mut silent: Vec<Client> = (0..5).map(|_| sidecar.connect_silently()).collect();
    let mut client = sidecar.connect();
    client.still_works();
    for one in &mut silent {
        one.set_patience(3 * std::time::Duration::from_millis(FRAME_READ_TIMEOUT_MS));
        let told = format!("{:?}", one.next_reply().unwrap());
        assert!(told.contains("ProtocolError") && told.contains("hello took longer"), "{told}");
        assert!(one.is_closed());
    }
    client.still_works();
    drop(client);
    let mut half = sidecar.connect_silently();
    half.set_patience(SOON);
    assert!(half.write_raw(&[0x40, 0, 0, 0, 0x93]));
    let told = format!("{:?}", half.next_reply().unwrap());
    assert!(told.contains("ProtocolError") && told.contains("hello took longer"), "{told}");
    eventually_served(&sidecar);
}

#[test]
fn whoever_has_gone_before_saying_anything_costs_no_process() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().worker_each(4).listen();
    let mut bystander = sidecar.connect();
    bystander.still_works();
    eventually("another one stands ready", SOON, || workers_of(sidecar.pid()).len() == 2);
    let before = workers_of(sidecar.pid());
    // all of them have gone when they are taken
    stop(sidecar.pid());
    for _ in 0..100 {
        drop(UnixStream::connect(sidecar.path()).unwrap());
    }
    let ends = UnixStream::connect(sidecar.path()).unwrap();
    ends.shutdown(std::net::Shutdown::Write).unwrap();
    let mut says = UnixStream::connect(sidecar.path()).unwrap();
    says.write_all(b"something").unwrap();
    drop(says);
    send_signal(sidecar.pid(), Signal::SIGCONT);
    // who comes behind them is served
    let mut client = sidecar.connect();
    client.still_works();
    let there = workers_of(sidecar.pid());
    assert!(before.iter().all(|worker| there.contains(worker)), "nobody else had it: {before:?}, {there:?}");
    bystander.still_works();
}

#[test]
fn however_many_say_nothing_who_speaks_is_served() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().worker_each(2).listen();
    let silent: Vec<Client> = (0..MAX_SILENT_CONNECTIONS + 50).map(|_| sidecar.connect_silently()).collect();
    let mut clients = [sidecar.connect(), sidecar.connect()];
    clients.iter_mut().for_each(Client::still_works);
    assert!(descriptors_of(sidecar.pid()) < MAX_SILENT_CONNECTIONS + 200);
    drop(silent);
}

// ---- one stands still ----

#[test]
fn a_process_that_stands_still_is_ended_and_its_place_is_the_next_ones() {
    let _w = Watchdog::seconds(240);
    let sidecar = Options::new().worker_each(2).listen();
    let mut bystander = sidecar.connect();
    bystander.still_works();
    for client_goes in [false, true] {
        let mut client = sidecar.connect();
        client.still_works();
        // there are two, and no others are made
        let worker = *workers_of(sidecar.pid()).last().unwrap();
        // an answer is there a moment before its worker notes that it has left
        settled_counts(sidecar.pid());
        stop(worker);
        if client_goes {
            drop(client);
        } else {
            // it was at rest: another one has it from then on
            client.set_patience(SOON);
            client.still_works();
            drop(client);
        }
        eventually("it is gone", SOON, || !is_alive(worker));
        bystander.still_works();
        eventually_served(&sidecar);
    }
}

#[test]
fn whoever_was_given_to_a_process_that_stands_still_has_another_one() {
    let _w = Watchdog::seconds(240);
    let mut sidecar = Options::new().worker_each(2).listen();
    eventually("one stands ready", SOON, || sidecar.stderr().contains("ready: "));
    let spare = workers_of(sidecar.pid())[0];
    stop(spare);
    let mut client = sidecar.connect_silently();
    client.set_patience(SOON);
    client.hello();
    client.still_works();
    assert!(!is_alive(spare));
    drop(client);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
}

// ---- what is told ----

#[test]
fn a_command_tells_that_there_is_no_room() {
    let _w = Watchdog::seconds(120);
    let sidecar = Options::new().worker_each(1).listen();
    let _client = sidecar.connect();
    for command in ["ping", "stats", "top"] {
        let mut asks = Command::new(binary());
        asks.args([command, "--connect"]).arg(sidecar.path());
        let out = asks.output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && told.contains("OVERLOADED"), "{command}: {told}");
    }
}

#[test]
fn a_sidecar_that_is_told_to_end_while_a_process_starts_tells_of_no_error() {
    let _w = Watchdog::seconds(120);
    let dir = TempDir::new();
    for n in 0..3 {
        let mut sidecar = Options::new().worker_each(2).listen_on(&dir.join(&format!("{n}.sock")));
        eventually("one starts", SOON, || !workers_of(sidecar.pid()).is_empty());
        send_signal(workers_of(sidecar.pid())[0], Signal::SIGSTOP);
        sidecar.signal(Signal::SIGTERM);
        assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
        assert!(!sidecar.stderr().contains("ERROR"), "{}", sidecar.stderr());
    }
}
