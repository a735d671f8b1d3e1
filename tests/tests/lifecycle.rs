//! What ends a sidecar, what does not, and what its clients see of the end.
//!
//! `NEXUS_TRIALS=200` repeats what chance may hide more often than the gate does.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nexus_protocol::ErrorCode;
use nexus_tests::client::Answer;
use nexus_tests::leaks::is_alive;
use nexus_tests::process::command;
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Options, Run, SOON, Sidecar, Watchdog, eventually, in_time, time, trials};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

// ---- the parent ----

/// A parent with a busy sidecar.
struct Family {
    parent: Child,
    sidecar: u32,
    /// Holds the parent's end of the socket.
    holder: Option<u32>,
}

impl Family {
    fn new(args: &[&str]) -> Self {
        let mut parent = Command::new(env!("CARGO_BIN_EXE_spawn-and-wait"));
        let mut parent = parent.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut pids = line.split_whitespace().map(|word| word.parse().unwrap());
        let sidecar = pids.next().unwrap_or_else(|| panic!("the parent said {line:?}"));
        assert!(is_alive(sidecar));
        Self { parent, sidecar, holder: pids.next() }
    }

    fn signal_parent(&self, signal: Signal) {
        kill(Pid::from_raw(self.parent.id() as i32), signal).unwrap();
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.parent.kill();
        let _ = self.parent.wait();
        for pid in self.holder.into_iter().chain([self.sidecar]) {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

fn the_sidecar_goes_with_its_parent(args: &[&str], times: usize) {
    let mut taken = Vec::new();
    for _ in 0..times {
        let mut family = Family::new(args);
        family.parent.kill().unwrap();
        family.parent.wait().unwrap();
        let started = Instant::now();
        eventually("the sidecar is gone", SOON, || !is_alive(family.sidecar));
        taken.push(started.elapsed());
    }
    taken.sort();
    println!("{times} parents were killed; the sidecar was gone after {:?} at most", taken[times - 1]);
    // of a machine that is busy; one that looked for its parent now and then would be late nearly always
    assert!(taken[times / 2] < Duration::from_secs(1), "{taken:?}");
}

#[test]
fn a_child_ends_when_its_parent_is_killed() {
    let _w = Watchdog::seconds(600 + trials(0) as u64);
    the_sidecar_goes_with_its_parent(&[], trials(20));
}

#[test]
fn a_child_ends_with_its_parent_though_somebody_else_holds_the_socket() {
    let _w = Watchdog::seconds(600 + trials(0) as u64);
    the_sidecar_goes_with_its_parent(&["--leak"], trials(10));
}

#[test]
fn a_parent_that_is_stopped_for_five_seconds_is_not_gone() {
    let _w = Watchdog::seconds(60);
    let family = Family::new(&[]);
    family.signal_parent(Signal::SIGSTOP);
    thread::sleep(Duration::from_secs(5));
    assert!(is_alive(family.sidecar));
    family.signal_parent(Signal::SIGCONT);
    thread::sleep(Duration::from_millis(500));
    assert!(is_alive(family.sidecar));
}

#[test]
fn a_child_outlives_the_thread_that_spawned_it() {
    let _w = Watchdog::seconds(60);
    let spawned = thread::spawn(|| Options::new().patient().flag("log", "debug").child()).join();
    let (mut sidecar, mut client) = spawned.unwrap();
    eventually("the kernel's signal came", SOON, || sidecar.stderr().contains("the parent may be gone; it is not"));
    client.still_works();
    assert!(sidecar.is_running());
}

// shows P-child
#[test]
fn descriptors_that_a_parent_leaks_are_closed_at_start() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let leaked = fs::File::create(dir.join("leaked")).unwrap();
    let mut serve = command(dir.path());
    serve.arg("serve").arg("--listen").arg(&path).stderr(Stdio::null());
    serve.fd_mappings(vec![FdMapping { parent_fd: leaked.into(), child_fd: 77 }]).unwrap();
    let mut child = serve.spawn().unwrap();
    eventually("it serves", SOON, || std::os::unix::net::UnixStream::connect(&path).is_ok());
    let targets: Vec<_> = fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!targets.iter().any(|target| target.ends_with("leaked")), "{targets:?}");
}

// ---- the end ----

/// Beyond `drainTimeoutMs`.
const FAREWELL: Duration = Duration::from_secs(1);
/// Of the tests that let it pass.
const DRAIN: Duration = Duration::from_millis(300);

/// A sidecar that is told to end when `busy` has made it so ends within its time, and with code 0. `after` gets what `busy` made.
fn ends_in_time<T>(options: &Options, mut busy: impl FnMut(&mut Sidecar) -> T, mut after: impl FnMut(T)) {
    let options = options.clone().flag("drain-timeout-ms", DRAIN.as_millis());
    let end = |sidecar: &mut Sidecar| {
        time(|| {
            sidecar.signal(Signal::SIGTERM);
            assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
        })
    };
    let idle = || {
        let mut sidecar = options.listen();
        sidecar.connect().still_works();
        end(&mut sidecar)
    };
    in_time("it ends", DRAIN + FAREWELL, idle, || {
        let mut sidecar = options.listen();
        let held = busy(&mut sidecar);
        let taken = end(&mut sidecar);
        after(held);
        taken
    });
}

/// Every answer that is still to come, by request; panics at a second one for the same request.
fn rest(client: &mut Client) -> HashMap<u32, Answer> {
    let mut answers = HashMap::new();
    while let Some(reply) = client.next_reply() {
        let again = answers.insert(reply.id, reply.answer);
        assert!(again.is_none(), "request {} is answered twice", reply.id);
    }
    answers
}

#[test]
fn sigterm_under_load_answers_every_accepted_request_once() {
    let _w = Watchdog::seconds(600);
    for trial in 0..trials(5) {
        let mut sidecar = Options::new().patient().flag("max-instances", 2).flag("drain-timeout-ms", 600_000).listen();
        let mut clients: Vec<Client> = (0..4).map(|_| sidecar.connect()).collect();
        let accepted: Vec<Vec<u32>> = clients
            .iter_mut()
            .map(|client| {
                let suspended = client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
                let mut ids: Vec<u32> = (0..20)
                    .map(|i| client.start(format!("for (let i = 0; i < {}; i++); return 'done'", i * 1000).as_str()))
                    .collect();
                ids.push(client.start_resume(&suspended.call().id, &json!(1)));
                // frames of a connection are read in order: what came before an answered ping is accepted
                let ping = client.send(&nexus_protocol::ClientMessage::Ping);
                client.wait_keeping(ping);
                ids
            })
            .collect();
        sidecar.signal(Signal::SIGTERM);
        // and some that come too late, or do not
        for client in &mut clients {
            let _ = client.try_start("return 'late'");
        }
        for (client, ids) in clients.iter_mut().zip(&accepted) {
            let answers = rest(client);
            for id in ids {
                let Some(Answer::Result(segment)) = answers.get(id) else {
                    panic!("trial {trial}: request {id} has no answer; {} have", answers.len());
                };
                segment.value();
            }
        }
        // as soon as all is answered, not when the time for that is over
        assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    }
}

// shows P-drain
#[test]
fn a_draining_sidecar_refuses_new_work_and_takes_resumes() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = Options::new().patient().listen();
    let mut client = sidecar.connect();
    let first = client.run(Run::source("$log('a'); return await $ext.a.b() + 1").grant(&["ext:a"]));
    sidecar.signal(Signal::SIGTERM);
    let mut refused = None;
    eventually("new work is refused", SOON, || {
        refused = client.run("return 1").error;
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert!(refused.retryable && refused.message.contains("draining"), "{refused:?}");
    client.ping();
    assert_eq!(client.resume(&first.call().id, &json!(41)).value(), 42);
    assert_eq!(sidecar.exit_code(SOON), 0);
}

// shows P-drain-end
#[test]
fn what_runs_at_the_end_of_the_drain_is_cancelled_and_answered() {
    let _w = Watchdog::seconds(90);
    let busy = |sidecar: &mut Sidecar| {
        let mut client = sidecar.connect();
        let running = client.start("for (;;);");
        eventually("the handler runs", SOON, || client.stats().active_instances == 1);
        let queued = client.start("return 1");
        client.ping();
        (client, [queued, running])
    };
    ends_in_time(&Options::new().patient().flag("max-instances", 1), busy, |(mut client, asked)| {
        let answers = rest(&mut client);
        let code = |id: u32| match answers.get(&id) {
            Some(Answer::Result(segment)) => segment.code(),
            other => panic!("{other:?}"),
        };
        assert_eq!(asked.map(code), [ErrorCode::Overloaded, ErrorCode::Cancelled]);
    });
}

#[test]
fn a_suspended_execution_that_nobody_resumes_holds_the_end_up_for_the_drain_only() {
    let _w = Watchdog::seconds(90);
    let busy = |sidecar: &mut Sidecar| {
        let mut client = sidecar.connect();
        client.run_suspended(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
        client
    };
    ends_in_time(&Options::new().patient(), busy, |mut client| assert!(client.is_closed()));
}

// shows P-drain-ends-on-time
#[test]
fn a_client_that_reads_nothing_does_not_hold_up_the_end() {
    let _w = Watchdog::seconds(90);
    let busy = |sidecar: &mut Sidecar| {
        let mut client = sidecar.connect();
        // less than what a connection is closed for
        for _ in 0..7 {
            client.start("return 'x'.repeat(1 << 20)");
        }
        let mut other = sidecar.connect();
        eventually("all have run", SOON, || other.stats().total_executions == 7);
        client
    };
    ends_in_time(&Options::new().patient(), busy, drop);
}

// shows P-drain-ends-on-time
#[test]
fn a_client_that_reads_a_little_at_a_time_does_not_hold_up_the_end() {
    let _w = Watchdog::seconds(60);
    let options = Options::new().patient().flag("drain-timeout-ms", DRAIN.as_millis());
    let idle = || {
        let (mut sidecar, mut client) = options.child();
        client.still_works();
        client.send(&nexus_protocol::ClientMessage::Shutdown);
        time(|| assert_eq!(sidecar.exit_code(SOON), 0))
    };
    in_time("it ends", DRAIN + FAREWELL, idle, || end_of_a_slow_reader(&options));
}

/// All of its answers would take more than a minute.
fn end_of_a_slow_reader(options: &Options) -> Duration {
    let (mut sidecar, mut client) = options.child();
    for _ in 0..6 {
        client.start("return 'x'.repeat(1 << 20)");
    }
    // from here on more waits than the socket takes
    client.send(&nexus_protocol::ClientMessage::Shutdown);
    client.send(&nexus_protocol::ClientMessage::Shutdown);
    let mut stream = client.stream().try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while stream.read(&mut bytes).is_ok_and(|n| n > 0) {
            thread::sleep(Duration::from_millis(200));
        }
    });
    let taken = time(|| assert_eq!(sidecar.exit_code(SOON), 0));
    drop(client);
    reader.join().unwrap();
    taken
}

// ---- reload ----

#[test]
fn sighup_reads_the_configuration_again() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let file = dir.join("c.toml");
    fs::write(&file, "timeoutMs = 60000\nmaxInstances = 2\n").unwrap();
    let mut sidecar = Options::new().flag("config", file.display()).listen();
    let mut client = sidecar.connect();
    client.still_works();
    fs::write(&file, "timeoutMs = 50\nmaxInstances = 3\ndebug = true\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is read", SOON, || sidecar.stderr().contains("changed: timeoutMs, debug"));
    assert!(sidecar.stderr().contains("maxInstances has changed, which takes effect at the next start"));
    assert_eq!(client.run("for (;;);").code(), ErrorCode::Timeout);
    // where a machine is busy this, too, may be stopped before it has begun
    eventually("debug is on", SOON, || client.run("null.x").error().snippet.is_some());
    let Answer::Hello { limits, debug, .. } = sidecar.connect_silently().hello() else { panic!("no hello") };
    assert_eq!((limits.timeout_ms, debug), (50, true));

    fs::write(&file, "timeoutMs = \"soon\"\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("it is refused", SOON, || sidecar.stderr().contains("the old one stays"));
    assert!(sidecar.stderr().contains("timeoutMs = \"soon\""), "{}", sidecar.stderr());
    assert_eq!(client.run("for (;;);").code(), ErrorCode::Timeout);

    fs::write(&file, "timeoutMs = 50\nmaxInstances = 2\nlog = \"debug\"\n").unwrap();
    sidecar.signal(Signal::SIGHUP);
    eventually("the level is changed", SOON, || sidecar.stderr().contains("changed: debug, log"));
    sidecar.connect().still_works();
    eventually("it logs more", SOON, || sidecar.stderr().contains("DEBUG"));
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
}
