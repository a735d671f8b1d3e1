//! The life of the process: how it starts, how it refuses to, and what ends it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nexus_protocol::ErrorCode;
use nexus_tests::leaks::{of_guests, settled_counts};
use nexus_tests::process::command;
use nexus_tests::run::BUILTIN;
use nexus_tests::temp::TempDir;
use nexus_tests::{LeakProbe, Options, Run, SOON, Watchdog, eventually, in_time, time};
use nix::sys::signal::Signal;

fn output(args: &[&str]) -> Output {
    let dir = TempDir::new();
    command(dir.path()).args(args).output().expect("the sidecar can be run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

// ---- a child and its parent ----

// shows P-child
#[test]
fn a_child_ends_when_its_socket_closes() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, client) = Options::new().child();
    drop(client);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert_eq!(sidecar.stdout(), "");
}

#[test]
fn a_child_ends_when_its_socket_closes_even_while_a_handler_runs() {
    let _w = Watchdog::seconds(60);
    for source in ["for (;;);", BUILTIN] {
        let end = |source: Option<&str>| {
            let (mut sidecar, mut client) = Options::new().patient().child();
            client.still_works();
            if let Some(source) = source {
                client.start(source);
                eventually("the handler runs", SOON, || client.stats().active_instances == 1);
            }
            drop(client);
            time(|| assert_eq!(sidecar.exit_code(SOON), 0))
        };
        in_time("it ends", Duration::from_millis(500), || end(None), || end(Some(source)));
    }
}

/// In an interpreter no fault is a trap: what goes on after it was asked to stop may not be taken its memory from.
#[test]
fn an_interpreted_sidecar_survives_what_does_not_stop_at_once() {
    const TIMES: usize = 5;
    let _w = Watchdog::seconds(300);
    let mut sidecar = Options::new().patient().flag("enable-aot", false).listen();
    let mut client = sidecar.connect();
    let busy = [
        "for (;;);",
        "const f = (n) => n < 2 ? n : f(n - 1) + f(n - 2); return f(40)",
        "let n = 0; while (true) n = [n, 1].map((x) => x + 1)[0]",
    ];
    for source in busy {
        for _ in 0..TIMES {
            assert_eq!(client.run(Run::source(source).timeout_ms(50)).code(), ErrorCode::Timeout, "{source}");
        }
    }
    client.still_works();
    assert!(sidecar.is_running());
}

#[test]
fn a_sidecar_that_is_stopped_for_a_while_goes_on() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, mut client) = Options::new().child();
    client.still_works();
    sidecar.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(300));
    sidecar.signal(Signal::SIGCONT);
    client.still_works();
    assert!(sidecar.is_running());
}

#[test]
fn shutdown_answers_what_runs_and_ends_a_child_with_0() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, mut client) = Options::new().patient().child();
    let running = client.start("for (let i = 0; i < 5e6; i++); return 'finished'");
    let shutdown = client.send(&nexus_protocol::ClientMessage::Shutdown);
    assert_eq!(client.segment(running).value(), "finished");
    let done = client.wait(shutdown);
    assert!(matches!(done, nexus_tests::client::Answer::Done { .. }), "{done:?}");
    assert_eq!(sidecar.exit_code(SOON), 0);
}

// ---- signals ----

#[test]
fn sigterm_answers_what_runs_and_ends_with_0() {
    let _w = Watchdog::seconds(60);
    for child in [true, false] {
        let (mut sidecar, mut client) = if child {
            Options::new().patient().child()
        } else {
            let sidecar = Options::new().patient().listen();
            let client = sidecar.connect();
            (sidecar, client)
        };
        let running = client.start("for (let i = 0; i < 2e7; i++); return 'finished'");
        eventually("the handler runs, or has run", SOON, || {
            let stats = client.stats();
            stats.active_instances + stats.total_executions == 1
        });
        sidecar.signal(Signal::SIGTERM);
        assert_eq!(client.segment(running).value(), "finished");
        assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    }
}

#[test]
fn sigterm_with_nothing_to_do_ends_at_once() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = Options::new().flag("drain-timeout-ms", 600_000).listen();
    let _idle = sidecar.connect();
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert!(!sidecar.path().exists(), "the socket is left behind");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let _w = Watchdog::seconds(60);
    let options = Options::new().patient().flag("timeout-ms", 600_000).flag("drain-timeout-ms", 600_000);
    let mut sidecar = options.listen();
    let mut client = sidecar.connect();
    client.start("for (;;);");
    eventually("the handler runs", SOON, || client.stats().active_instances == 1);
    sidecar.signal(Signal::SIGTERM);
    eventually("it has heard the first one", SOON, || sidecar.stderr().contains("told to end"));
    std::thread::sleep(Duration::from_millis(100));
    assert!(sidecar.is_running());
    sidecar.signal(Signal::SIGTERM);
    // long before the drain is over, and by its own will
    assert_eq!(sidecar.exit_code(SOON), 0, "{}", sidecar.stderr());
    assert!(client.is_closed());
    assert!(!sidecar.path().exists(), "the socket is left behind");
}

#[test]
fn a_draining_sidecar_takes_no_new_work() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = Options::new().patient().listen();
    let mut client = sidecar.connect();
    let running = client.start("for (;;);");
    eventually("the handler runs", SOON, || client.stats().active_instances == 1);
    sidecar.signal(Signal::SIGTERM);
    eventually("new work is refused", SOON, || {
        let segment = client.run("return 1");
        segment.error.is_some_and(|e| e.code == ErrorCode::Overloaded)
    });
    assert!(client.cancel_request(running));
    assert_eq!(client.segment(running).code(), ErrorCode::Cancelled);
    assert_eq!(sidecar.exit_code(SOON), 0);
}

// ---- the socket ----

#[test]
fn the_socket_and_its_directory_are_the_users_alone() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("made/by/it/s.sock");
    let sidecar = Options::new().listen_on(&path);
    sidecar.wait_until_ready();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    sidecar.connect().still_works();
}

#[test]
fn a_second_sidecar_on_a_path_ends_with_4_and_names_it() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    let mut second = Options::new().listen_on(sidecar.path());
    assert_eq!(second.exit_code(SOON), 4);
    assert!(second.stderr().contains(&sidecar.path().display().to_string()), "{}", second.stderr());
    sidecar.connect().still_works();
}

#[test]
fn of_racing_starts_exactly_one_serves() {
    let _w = Watchdog::seconds(90);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let mut all: Vec<_> = (0..6).map(|_| Options::new().listen_on(&path)).collect();
    eventually("all but one have ended", SOON, || {
        all.iter_mut().filter_map(|s| s.is_running().then_some(())).count() == 1
    });
    all[0].wait_until_ready();
    for sidecar in &mut all {
        if !sidecar.is_running() {
            assert_eq!(sidecar.exit_code(SOON), 4, "{}", sidecar.stderr());
        }
    }
    all[0].connect().still_works();
}

#[test]
fn a_stale_socket_is_replaced() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let mut first = Options::new().listen_on(&path);
    first.wait_until_ready();
    first.kill();
    assert!(path.exists());
    let second = Options::new().listen_on(&path);
    second.wait_until_ready();
    second.connect().still_works();
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("precious");
    fs::write(&path, "data").unwrap();
    let mut sidecar = Options::new().listen_on(&path);
    assert_ne!(sidecar.exit_code(SOON), 0);
    assert!(sidecar.stderr().contains("precious"), "{}", sidecar.stderr());
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    let target = dir.join("target.sock");
    let link = dir.join("link.sock");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut sidecar = Options::new().listen_on(&link);
    assert_ne!(sidecar.exit_code(SOON), 0);
    assert!(!target.exists());
}

#[test]
fn a_descriptor_that_is_no_socket_is_a_usage_error() {
    let _w = Watchdog::seconds(60);
    let closed = output(&["serve", "--fd", "77"]);
    assert_eq!(closed.status.code(), Some(2), "{}", stderr(&closed));
    assert!(stderr(&closed).contains("descriptor 77"), "{}", stderr(&closed));
    assert_eq!(output(&["serve", "--fd", "0"]).status.code(), Some(2));
    let dir = TempDir::new();
    let file = fs::File::create(dir.join("a-file")).unwrap();
    let mut with_file = command(dir.path());
    with_file.args(["serve", "--fd", "3"]);
    with_file.fd_mappings(vec![FdMapping { parent_fd: file.into(), child_fd: 3 }]).unwrap();
    let out = with_file.output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    assert!(stderr(&out).contains("descriptor 3"), "{}", stderr(&out));
}

// ---- configuration and commands ----

#[test]
fn a_bad_configuration_ends_with_3_and_names_the_setting() {
    let _w = Watchdog::seconds(60);
    let out = output(&["serve", "--listen", "/nonexistent/x", "--max-instances", "0"]);
    assert_eq!(out.status.code(), Some(3), "{}", stderr(&out));
    assert!(stderr(&out).contains("max-instances") || stderr(&out).contains("maxInstances"), "{}", stderr(&out));
    let dir = TempDir::new();
    let file = dir.join("c.toml");
    fs::write(&file, "maxInstnaces = 3\n").unwrap();
    let out = output(&["serve", "--listen", "/nonexistent/x", "--config", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(3), "{}", stderr(&out));
    assert!(stderr(&out).contains("maxInstnaces"), "{}", stderr(&out));
    let mut sidecar = Options::new().env("NEXUS_TIMEOUT_MS", "soon").listen_on(&dir.join("s.sock"));
    assert_eq!(sidecar.exit_code(SOON), 3);
    assert!(sidecar.stderr().contains("NEXUS_TIMEOUT_MS"), "{}", sidecar.stderr());
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let file = dir.join("c.toml");
    fs::write(&file, "timeoutMs = 1001\nmaxEvents = 11\nmaxHostCalls = 21\n").unwrap();
    let options = Options::new()
        .flag("config", file.display())
        .flag("timeout-ms", 1003)
        .env("NEXUS_TIMEOUT_MS", "1002")
        .env("NEXUS_MAX_EVENTS", "12");
    let sidecar = options.listen();
    let hello = sidecar.connect_silently().hello();
    let nexus_tests::client::Answer::Hello { limits, .. } = hello else { panic!("{hello:?}") };
    assert_eq!((limits.timeout_ms, limits.max_events, limits.max_host_calls), (1003, 12, 21));
}

#[test]
fn check_config_ends_with_0_or_2() {
    let _w = Watchdog::seconds(60);
    assert_eq!(output(&["serve", "--check-config", "--max-instances", "3"]).status.code(), Some(0));
    assert_eq!(output(&["serve", "--check-config", "--max-instances", "0"]).status.code(), Some(2));
}

#[test]
fn version_and_help_are_on_stdout() {
    let version = output(&["--version"]);
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.status.success() && text.starts_with("nexus-sidecar "), "{text}");
    let help = output(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["serve", "run", "check", "stats", "metrics", "ping", "engine"] {
        assert!(help.status.success() && text.contains(command), "{command} is not in: {text}");
    }
    assert_eq!(output(&["serve", "--nonsense"]).status.code(), Some(2));
    assert_eq!(output(&["nonsense"]).status.code(), Some(2));
    assert_eq!(output(&["serve"]).status.code(), Some(2));
}

#[test]
fn run_and_check_work_without_a_server() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let file = dir.join("h.js");
    fs::write(&file, "return [$state.n + 1, $args]").unwrap();
    let path = file.to_str().unwrap();
    let out = output(&["run", path, "--state", "{\"n\": 41}", "--args", "[1]", "--grant", "state:read:n", "--json"]);
    assert!(out.status.success(), "{}", stderr(&out));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("--json prints JSON");
    assert!(json.to_string().contains("[42,[1]]"), "{json}");
    let denied = output(&["run", path, "--state", "{\"n\": 41}"]);
    assert_eq!(denied.status.code(), Some(1));
    assert!(output(&["check", path]).status.success());
    fs::write(&file, "return (").unwrap();
    assert_eq!(output(&["check", path]).status.code(), Some(1));
}

#[test]
fn a_handler_is_run_again_when_its_file_has_changed() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let file = dir.join("h.js");
    fs::write(&file, "return 'first'").unwrap();
    let mut child = command(dir.path());
    child.args(["run", "--watch"]).arg(&file);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |word: &str| lines.find(|line| line.contains(word)).expect(word);
    next("\"first\"");
    fs::write(&file, "return (").unwrap();
    next("COMPILATION_ERROR");
    // as editors do it: the file is gone for a moment, and another one takes its place
    fs::remove_file(&file).unwrap();
    fs::write(dir.join("new.js"), "return 'third'").unwrap();
    fs::rename(dir.join("new.js"), &file).unwrap();
    next("\"third\"");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn stats_metrics_and_ping_ask_a_running_sidecar() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    sidecar.connect().still_works();
    let path = sidecar.path().to_str().unwrap();
    for (command, word) in [("stats", "xecutions"), ("metrics", "nexus_handler_executions_total"), ("ping", "")] {
        let named =
            self::command(sidecar.path().parent().unwrap()).arg(command).env("NEXUS_CONNECT", path).output().unwrap();
        assert!(named.status.success() && String::from_utf8_lossy(&named.stdout).contains(word), "{}", stderr(&named));
        let out = output(&[command, "--connect", path]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && text.contains(word), "{command}: {text} {}", stderr(&out));
    }
}

#[test]
fn a_cache_directory_that_cannot_be_written_is_only_a_warning() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let file = dir.join("a-file");
    fs::write(&file, "").unwrap();
    let sidecar = Options::new().flag("cache-dir", file.join("below").display()).listen();
    sidecar.connect().still_works();
    // what the sidecar writes arrives through a pipe, in its own time
    eventually("the warning", SOON, || sidecar.stderr().contains("WARN"));
}

#[test]
fn a_guest_module_that_is_not_there_ends_with_5_and_names_it() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let missing = dir.join("no-such-guest.so");
    let mut sidecar = Options::new().flag("quickjs-module-path", missing.display()).listen_on(&dir.join("s.sock"));
    assert_eq!(sidecar.exit_code(SOON), 5);
    assert!(sidecar.stderr().contains("no-such-guest.so"), "{}", sidecar.stderr());
    let garbage = dir.join("garbage.so");
    fs::write(&garbage, "this is no module").unwrap();
    let mut sidecar = Options::new().flag("quickjs-module-path", garbage.display()).listen_on(&dir.join("t.sock"));
    assert!([5, 6].contains(&sidecar.exit_code(SOON)));
    assert!(sidecar.stderr().contains("garbage.so"), "{}", sidecar.stderr());
}

// ---- what runs ----

#[test]
fn handlers_run_as_native_code() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().listen();
    sidecar.connect().still_works();
    let maps = fs::read_to_string(format!("/proc/{}/maps", of_guests(sidecar.pid()))).unwrap();
    let native = maps
        .lines()
        .any(|line| line.contains("memfd:nexus-guest") && line.split(' ').nth(1).is_some_and(|p| p.contains('x')));
    assert!(native, "no executable mapping of the guest in:\n{maps}");
}

// shows P-child
#[test]
fn stdout_stays_silent_whatever_happens() {
    let _w = Watchdog::seconds(60);
    let mut sidecar = Options::new().debug().flag("log", "debug").listen();
    let mut client = sidecar.connect();
    client.run("throw new Error('\\u001b[31m red \\n')");
    client.run(Run::source("for (;;);").timeout_ms(30));
    client.run("function f() { f() } f()");
    client.run("console.log('to stdout?'); $log.error('or here?')");
    client.run(Run::source("const a = []; for (;;) a.push(new Array(1000).fill(1))"));
    client.run(Run::source("return (3n ** 4000000n).toString()").timeout_ms(30));
    client.write_raw(&[0; 4]);
    sidecar.connect().still_works();
    sidecar.signal(Signal::SIGTERM);
    assert_eq!(sidecar.exit_code(SOON), 0);
    assert_eq!(sidecar.stdout(), "");
    assert!(!sidecar.stderr().contains('\u{1b}'), "{}", sidecar.stderr());
}

#[test]
fn connections_and_executions_leave_no_descriptor_and_no_thread_behind() {
    let _w = Watchdog::seconds(60);
    let sidecar = Options::new().flag("max-instances", 2).listen();
    let burst = || {
        for i in 0..50 {
            let mut client = sidecar.connect();
            client.still_works();
            if i % 10 == 0 {
                client.run(Run::source("await $ext.a.b()").grant(&["ext:*"]));
                client.run(Run::source("for (;;);").timeout_ms(10));
            }
        }
    };
    burst();
    let mut watcher = sidecar.connect();
    let quiet = |watcher: &mut nexus_tests::Client| {
        eventually("all is quiet", SOON, || watcher.stats().suspended_instances == 0);
        settled_counts(sidecar.pid())
    };
    let before = quiet(&mut watcher);
    burst();
    assert_eq!(quiet(&mut watcher), before, "descriptors, threads");
}

#[test]
fn memory_does_not_grow_with_the_number_of_executions() {
    let _w = Watchdog::seconds(90);
    let (sidecar, mut client) = Options::new().flag("max-instances", 2).child();
    let mut batch = |rounds: usize| {
        for i in 0..rounds {
            client.run(Run::source("$log('x'.repeat(1000)); return $args").args(&serde_json::json!(i)));
            let first = client.run(Run::source("return await $ext.a.b()").grant(&["ext:*"]));
            client.resume(&first.call().id, &serde_json::json!("answer"));
            if i % 100 == 0 {
                client.run(format!("return {i} // compiled once").as_str());
                client.run(Run::source("const a = []; for (;;) a.push(new Array(1000).fill(1))"));
                client.run("throw new Error('x')");
            }
        }
        LeakProbe::of(sidecar.pid()).rss_bytes
    };
    batch(1000);
    let (first, second) = (batch(1000), batch(2000));
    assert!(second <= first + (3 << 20), "{first} bytes, then {second}");
}

#[test]
fn kill_9_is_seen_by_the_client() {
    let _w = Watchdog::seconds(60);
    let (mut sidecar, mut client) = Options::new().child();
    client.start("for (;;);");
    sidecar.kill();
    assert!(client.is_closed());
    assert_eq!(sidecar.wait(SOON).signal(), Some(9));
}
