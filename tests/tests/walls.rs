//! The walls around guests: a sealed process in which they run, seen from outside, and native code that tries to get out of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nexus_protocol::ErrorCode;
use nexus_protocol::limits::{MAX_WORKER_DEATHS, WORKER_START_MS};
use nexus_tests::http::get;
use nexus_tests::leaks::{is_alive, of_guests, settled_counts, workers_of};
use nexus_tests::process::{binary, command, send_signal};
use nexus_tests::temp::TempDir;
use nexus_tests::{Options, Run, SOON, Sidecar, Watchdog, eventually};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use serde_json::Value;

/// What separates guests, whatever the default is.
fn shared() -> Options {
    Options::new().flag("isolation", "shared")
}

/// A sidecar that has said that it is ready: its socket is there before.
fn ready(options: &Options) -> Sidecar {
    let sidecar = options.listen();
    eventually("it is ready", SOON, || sidecar.stderr().contains("ready: "));
    sidecar
}

fn worker_of(sidecar: &Sidecar) -> u32 {
    let worker = of_guests(sidecar.pid());
    assert_ne!(worker, sidecar.pid(), "there is no worker");
    worker
}

/// What `engine --json` says of this kernel.
fn missing_walls() -> String {
    let out = Command::new(binary()).args(["engine", "--json"]).output().unwrap();
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    told["missingWalls"].as_str().unwrap().to_owned()
}

fn healthz(path: &Path) -> String {
    get(path, "/healthz")
}

// ---- what is there ----

#[test]
fn every_thread_of_a_worker_is_sealed_and_it_has_nothing_but_what_it_needs() {
    let _w = Watchdog::seconds(60);
    let sidecar = shared().env("A_SECRET", "of whoever has started it").listen();
    let mut client = sidecar.connect();
    client.still_works();
    let worker = worker_of(&sidecar);
    for task in fs::read_dir(format!("/proc/{worker}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} is not in\n{status}");
        }
    }
    let environment = fs::read(format!("/proc/{worker}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("A_SECRET"));
    for descriptor in fs::read_dir(format!("/proc/{worker}/fd")).unwrap() {
        let descriptor = descriptor.unwrap();
        let number: u32 = descriptor.file_name().to_str().unwrap().parse().unwrap();
        let target = fs::read_link(descriptor.path()).unwrap().into_os_string().into_string().unwrap();
        let known = ["socket:", "anon_inode:[eventpoll]", "/memfd:nexus-image", "/memfd:nexus-page"];
        let own = format!("/proc/{worker}/pagemap");
        // standard error may be anything, and a copy of it waits for when no descriptor is left
        let is_error = fs::read_link(format!("/proc/{worker}/fd/2")).unwrap().to_str() == Some(&target);
        let good = known.iter().any(|start| target.starts_with(start)) || target == own || is_error;
        assert!(good || number == 0 && target == "/dev/null", "{number} is {target}");
    }
}

#[test]
fn what_holds_is_told_in_the_log_by_http_and_as_a_metric() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = ready(&shared().flag("http-listen", http.display()));
    let told = "isolation shared: guests run in a worker behind no new privileges";
    assert!(sidecar.stderr().contains(told), "{}", sidecar.stderr());
    assert!(healthz(&http).contains(told));
    let metrics = sidecar.connect().metrics();
    for wall in ["no_new_privs", "seccomp", "undumpable"] {
        assert!(metrics.contains(&format!("nexus_walls{{wall=\"{wall}\"}} 1")), "{metrics}");
    }
    let landlock = u8::from(!missing_walls().contains("landlock"));
    assert!(metrics.contains(&format!("nexus_walls{{wall=\"landlock\"}} {landlock}")), "{metrics}");
    let alone = Options::new().flag("isolation", "none").listen();
    assert!(alone.connect().metrics().contains("nexus_walls{wall=\"seccomp\"} 0"));
}

#[test]
fn whoever_requires_all_walls_gets_them_or_no_sidecar() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let start = |options: Options| options.flag("require-sandbox", true).listen_on(&dir.join("s.sock"));
    let mut alone = start(Options::new().flag("isolation", "none"));
    assert_eq!(alone.exit_code(SOON), 5);
    assert!(alone.stderr().contains("isolation is none"), "{}", alone.stderr());
    if missing_walls() == "none" {
        shared().flag("require-sandbox", true).listen().connect().still_works();
    }
    // whichever of them the kernel refuses
    for (wall, name) in ["no new privileges", "landlock", "no core dumps", "seccomp"].iter().enumerate() {
        let plan = format!("wall:error=1@{}", wall + 1);
        let mut without = start(shared().faults(&plan));
        assert_eq!(without.exit_code(SOON), 5, "{name}");
        assert!(without.stderr().contains("requireSandbox is true"), "{}", without.stderr());
        // whoever does not ask for it is told, and served
        let sidecar = ready(&shared().faults(&plan));
        assert!(sidecar.stderr().contains(&format!("a wall is missing around guests: {name}")), "{}", sidecar.stderr());
        sidecar.connect().still_works();
    }
}

// ---- the life of a worker ----

#[test]
fn a_worker_that_is_lost_is_replaced_and_clients_see_one_process_all_the_time() {
    let _w = Watchdog::seconds(120);
    let sidecar = ready(&shared());
    let mut lost = Vec::new();
    for round in 0..3 {
        let mut client = sidecar.connect_silently();
        assert!(format!("{:?}", client.hello()).contains(&format!("pid: {}", sidecar.pid())));
        client.still_works();
        let id = client.start(Run::source("for (;;);").timeout_ms(0));
        let mut other = sidecar.connect();
        eventually("it runs", SOON, || other.stats().active_instances == 1);
        let worker = worker_of(&sidecar);
        assert!(!lost.contains(&worker));
        send_signal(worker, Signal::SIGKILL);
        lost.push(worker);
        assert!(client.is_lost(id), "what was with it is over");
        // others wait at the socket meanwhile, and are served
        sidecar.connect().still_works();
        eventually("it is told", SOON, || sidecar.stderr().matches("another worker serves").count() > round);
    }
}

#[test]
fn workers_that_are_lost_one_after_the_other_end_the_sidecar() {
    let _w = Watchdog::seconds(120);
    let mut sidecar = ready(&shared());
    let path = sidecar.path().to_owned();
    let mut last = 0;
    eventually("it ends", SOON, || {
        let worker = of_guests(sidecar.pid());
        if worker != sidecar.pid() && worker != last {
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGKILL);
            last = worker;
        }
        !sidecar.is_running()
    });
    assert_eq!(sidecar.exit_code(SOON), 71);
    assert!(sidecar.stderr().contains("the worker was ended by SIGKILL"), "{}", sidecar.stderr());
    assert!(!path.exists(), "its socket is gone");
}

#[test]
fn a_worker_that_is_lost_while_it_starts_is_one_of_those_that_are_lost() {
    let _w = Watchdog::seconds(120);
    let mut sidecar = ready(&shared());
    let (mut lost, mut last) = (0, 0);
    eventually("as many are lost as may be", SOON, || {
        let worker = of_guests(sidecar.pid());
        if worker != sidecar.pid() && worker != last {
            send_signal(worker, Signal::SIGKILL);
            (last, lost) = (worker, lost + 1);
        }
        assert!(sidecar.is_running(), "after {lost}: {}", sidecar.stderr());
        lost == MAX_WORKER_DEATHS - 1
    });
    sidecar.connect().still_works();
    assert_eq!(sidecar.stderr().matches("another worker serves").count(), 1, "{}", sidecar.stderr());
}

/// A worker of a sidecar that was just started, or whose last one is lost; it does not serve yet, and goes no further.
fn stopped_at_its_start(sidecar: &Sidecar, last: u32) -> u32 {
    let mut worker = last;
    eventually("there is a worker", SOON, || {
        worker = of_guests(sidecar.pid());
        worker != sidecar.pid() && worker != last
    });
    send_signal(worker, Signal::SIGSTOP);
    worker
}

#[test]
fn a_worker_that_stands_still_while_it_starts_is_killed_after_a_while_and_a_sidecar_that_is_told_to_end_does() {
    let _w = Watchdog::seconds(300);
    let dir = TempDir::new();
    // the first one
    let mut sidecar = shared().listen_on(&dir.join("a.sock"));
    let worker = stopped_at_its_start(&sidecar, 0);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    assert!(!sidecar.stderr().contains("ready: ") && !is_alive(worker));
    let mut waits = shared().listen_on(&dir.join("b.sock"));
    let stopped = stopped_at_its_start(&waits, 0);
    // and one that comes after
    let http = dir.join("http.sock");
    let sidecar = ready(&shared().flag("http-listen", http.display()));
    let first = worker_of(&sidecar);
    send_signal(first, Signal::SIGKILL);
    let second = stopped_at_its_start(&sidecar, first);
    assert!(get(&http, "/readyz").starts_with("HTTP/1.1 503"), "nobody takes clients");
    sidecar.connect().still_works();
    assert!(!is_alive(second) && sidecar.stderr().contains("does not serve after"), "{}", sidecar.stderr());
    assert!(get(&http, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(waits.exit_code(SOON), 71);
    assert!(waits.stderr().contains("does not serve after") && !is_alive(stopped), "{}", waits.stderr());
}

#[test]
fn a_worker_that_stands_still_keeps_no_sidecar_from_its_end() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = ready(&shared().flag("drain-timeout-ms", 100));
    let worker = worker_of(&sidecar);
    send_signal(worker, Signal::SIGSTOP);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 71);
    assert!(sidecar.stderr().contains("has not ended in time") && !is_alive(worker), "{}", sidecar.stderr());
}

#[test]
fn a_child_whose_worker_stands_still_while_it_starts_goes_with_its_parent() {
    let _w = Watchdog::seconds(60);
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut parent = Command::new("sh");
    parent.args(["-c", "\"$0\" serve --fd 3 --isolation shared & echo $!; wait"]).arg(binary()).stdout(Stdio::piped());
    parent.fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: 3 }]).unwrap();
    let mut parent = parent.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let sidecar: u32 = line.trim().parse().unwrap();
    let mut worker = sidecar;
    eventually("there is a worker", SOON, || {
        worker = of_guests(sidecar);
        worker != sidecar
    });
    send_signal(worker, Signal::SIGSTOP);
    parent.kill().unwrap();
    parent.wait().unwrap();
    // long before the worker is given up
    let gone = || !is_alive(sidecar) && !is_alive(worker);
    eventually("both are gone", Duration::from_millis(WORKER_START_MS / 2), gone);
}

#[test]
fn a_directory_for_temporary_files_that_is_of_no_use_is_told_of() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    fs::write(dir.join("file"), "").unwrap();
    let long = dir.join(&"d".repeat(100));
    fs::create_dir(&long).unwrap();
    for tmp in [dir.join("nowhere"), dir.join("file"), long] {
        let mut sidecar = shared().env("TMPDIR", tmp.to_str().unwrap()).listen_on(&dir.join("s.sock"));
        assert_eq!(sidecar.exit_code(SOON), 70, "{}: {}", tmp.display(), sidecar.stderr());
        let told = sidecar.stderr();
        assert!(told.contains("TMPDIR names another one") && !told.contains("panicked"), "{told}");
    }
}

#[test]
fn the_parent_of_a_child_whose_worker_is_lost_is_told_by_its_end() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, mut client) = shared().child();
    client.start("for (;;);");
    send_signal(worker_of(&sidecar), Signal::SIGKILL);
    assert!(client.is_closed());
    assert_eq!(sidecar.exit_code(SOON), 71);
}

#[test]
fn nothing_of_it_outlives_the_process_that_clients_know() {
    let _w = Watchdog::seconds(60);
    for child in [false, true] {
        let (mut sidecar, _client) = if child {
            let (sidecar, client) = shared().child();
            (sidecar, Some(client))
        } else {
            (ready(&shared()), None)
        };
        let worker = worker_of(&sidecar);
        sidecar.kill();
        eventually("the worker is gone", SOON, || !is_alive(worker));
    }
}

#[test]
fn signals_that_reach_all_processes_end_the_worker_no_sooner_than_the_sidecar() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = ready(&shared());
    let mut client = sidecar.connect();
    let worker = worker_of(&sidecar);
    for one in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        send_signal(worker, one);
    }
    client.still_works();
    let id = client.start(Run::source("for (;;);").timeout_ms(1000));
    let mut other = sidecar.connect();
    eventually("it runs", SOON, || other.stats().active_instances == 1 || other.stats().total_executions > 1);
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(client.segment(id).code(), ErrorCode::Timeout);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert!(!is_alive(worker));
}

#[test]
fn a_worker_that_is_stopped_is_noticed_and_goes_on_when_it_may() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let http = dir.join("http.sock");
    let sidecar = ready(&shared().flag("http-listen", http.display()));
    let mut client = sidecar.connect();
    client.still_works();
    let worker = worker_of(&sidecar);
    for _ in 0..3 {
        assert!(healthz(&http).starts_with("HTTP/1.1 200"));
        send_signal(worker, Signal::SIGSTOP);
        // an answer may be under way that it has given before
        eventually("it is noticed", SOON, || healthz(&http).starts_with("HTTP/1.1 503"));
        send_signal(worker, Signal::SIGCONT);
        client.still_works();
    }
    eventually("it is alive", SOON, || healthz(&http).starts_with("HTTP/1.1 200"));
    send_signal(worker, Signal::SIGSTOP);
    eventually("it takes nobody", SOON, || get(&http, "/readyz").starts_with("HTTP/1.1 503"));
    send_signal(worker, Signal::SIGCONT);
    eventually("it is ready", SOON, || get(&http, "/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn however_many_come_at_once_the_supervisor_keeps_none_that_the_worker_has() {
    let _w = Watchdog::seconds(120);
    let sidecar = ready(&shared());
    sidecar.connect().still_works();
    eventually("another worker stands ready", SOON, || workers_of(sidecar.pid()).len() == 2);
    settled_counts(sidecar.pid());
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count();
    let before = descriptors();
    for _ in 0..3 {
        // all wait at the socket, and are taken in one go
        send_signal(sidecar.pid(), Signal::SIGSTOP);
        let clients: Vec<_> = (0..900).map_while(|_| waiting_at(sidecar.path())).collect();
        assert!(clients.len() > 100, "only {} can wait", clients.len());
        send_signal(sidecar.pid(), Signal::SIGCONT);
        drop(clients);
        sidecar.connect().still_works();
        eventually("nothing is kept", SOON, || descriptors() <= before);
    }
}

/// A connection that nobody has taken yet. None: no more can wait.
fn waiting_at(path: &Path) -> Option<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).ok()?;
    Some(socket)
}

#[test]
fn a_handler_that_is_compiled_outlives_worker_and_sidecar() {
    let _w = Watchdog::seconds(180);
    let cache = TempDir::new();
    let options = shared().flag("cache-dir", cache.join("c").display());
    let kept = || nexus_tests::process::handlers_on_disk(&cache.join("c"));
    let was_there = || {
        let mut sidecar = options.listen();
        let mut client = sidecar.connect();
        client.run("return 'kept'");
        let was_there = client.stats().cache_hit_rate > 0.0;
        // nobody's end waits for what is only to save time
        eventually("it is kept", SOON, || kept() == 1);
        sidecar.signal(Signal::SIGTERM);
        assert_eq!(sidecar.exit_code(SOON), 0);
        was_there
    };
    assert!(!was_there());
    for _ in 0..2 {
        // who does not hear in time what is kept compiles it, on a machine that is busy
        eventually("it is found", SOON, was_there);
    }
    assert_eq!(kept(), 1);
}

#[test]
fn a_worker_is_nothing_that_anybody_else_can_start() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let run = |supervisor: u32| {
        let mut worker = command(dir.path());
        worker.args(["worker", &supervisor.to_string(), "/nowhere"]).stdout(Stdio::null()).stderr(Stdio::null());
        worker.status().unwrap().code()
    };
    assert_eq!(run(1), Some(75), "that is not its parent");
    assert_eq!(run(std::process::id()), Some(70), "it was left no descriptors");
}

// ---- native code that has taken a worker over ----

/// What the program with faults can try.
fn attempts() -> Vec<&'static str> {
    let source = include_str!("../../sidecar/src/walls/hostile.rs");
    let names = source.lines().filter_map(|line| line.trim().strip_prefix("attempt(\"")?.split('"').next());
    names.collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused(String),
    Ended,
    GotThrough(String),
}

/// A request whose thread tries it.
fn outcome_of(options: Options, name: &str) -> (Sidecar, Outcome) {
    let mut sidecar = options.faults(&format!("worker:escape={name}@1")).listen();
    let mut client = sidecar.connect();
    client.start("return 1");
    let mut outcome = None;
    eventually("something comes of it", SOON, || {
        let text = sidecar.stderr();
        let said = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("NEXUS_FAULTS: {name} {what}: ")));
            line.map(str::to_owned)
        };
        outcome = match (said("is refused"), said("got through")) {
            (Some(why), _) => Some(Outcome::Refused(why)),
            (_, Some(what)) => Some(Outcome::GotThrough(what)),
            _ => text.contains("the worker was ended by SIGSYS").then_some(Outcome::Ended),
        };
        outcome.is_some() || !sidecar.is_running()
    });
    let outcome = outcome.unwrap_or_else(|| panic!("{name}: {}", sidecar.stderr()));
    (sidecar, outcome)
}

#[test]
fn native_code_in_a_worker_gets_nowhere() {
    let _w = Watchdog::seconds(600);
    let attempts = attempts();
    assert!(attempts.len() > 70, "{attempts:?}");
    let mut through = Vec::new();
    for name in attempts {
        let (sidecar, outcome) = outcome_of(shared(), name);
        println!("{name:32} {outcome:?}");
        match outcome {
            Outcome::Refused(_) => sidecar.connect().still_works(),
            // whoever comes next finds another worker
            Outcome::Ended => drop(sidecar.connect()),
            Outcome::GotThrough(what) => through.push(format!("{name}: {what}")),
        }
    }
    assert_eq!(through, Vec::<String>::new());
}

#[test]
fn the_same_code_gets_through_where_there_are_no_walls() {
    let _w = Watchdog::seconds(120);
    for name in
        ["open-passwd", "stat", "memory-file", "socket-unix", "kill-supervisor", "fork", "map-executable", "limits"]
    {
        let (_sidecar, outcome) = outcome_of(Options::new().flag("isolation", "none"), name);
        assert!(matches!(outcome, Outcome::GotThrough(_)), "{name}: {outcome:?}");
    }
}
