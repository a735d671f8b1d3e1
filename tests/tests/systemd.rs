//! Under a service manager: readiness, the watchdog, a socket that is handed in, and the units of `sidecar/deploy`.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nexus_tests::http::get;
use nexus_tests::leaks::of_guests;
use nexus_tests::process::{binary, command};
use nexus_tests::run::every_kind;
use nexus_tests::temp::TempDir;
use nexus_tests::{Client, Options, Run, SOON, Watchdog, eventually, in_time, time};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What a service manager that wants to hear of a service asks for.
const WATCHDOG: Duration = Duration::from_millis(900);

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket }
    }

    fn hear(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Waits for a word, and returns all that was heard up to it.
    fn wait_for(&self, word: &str) -> Vec<String> {
        let mut heard = Vec::new();
        eventually(word, SOON, || {
            heard.extend(self.hear());
            heard.last().is_some_and(|last: &String| last.lines().any(|line| line.starts_with(word)))
        });
        heard
    }

    /// Three times in a row it hears in time that all is well: as late as threads of ours wake on this machine.
    fn is_fed(&self, when: &str) {
        let wake = || time(|| std::thread::sleep(Duration::from_millis(1)));
        in_time(when, WATCHDOG, wake, || {
            let beats = [(); 3].map(|()| time(|| drop(self.wait_for("WATCHDOG=1"))));
            beats.into_iter().max().unwrap_or_default()
        });
    }

    /// Whether the word comes within some time.
    fn hears(&self, word: &str, within: Duration) -> bool {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.hear().is_some_and(|words| words.contains(word)) {
                return true;
            }
        }
        false
    }
}

#[test]
fn a_service_manager_hears_of_the_start_a_reload_and_the_end() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let abstract_name = format!("nexus-tests-notify-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    let by_path = dir.join("notify");
    for (manager, name) in [
        (Manager::new(UnixDatagram::bind(&by_path).unwrap()), by_path.display().to_string()),
        (Manager::new(UnixDatagram::bind_addr(&by_name).unwrap()), format!("@{abstract_name}")),
    ] {
        let mut sidecar = Options::new().env("NOTIFY_SOCKET", &name).listen();
        manager.wait_for("READY=1");
        sidecar.connect().still_works();
        sidecar.signal(Signal::SIGHUP);
        let heard = manager.wait_for("RELOADING=1");
        assert!(heard.last().unwrap().contains("\nMONOTONIC_USEC="), "{heard:?}");
        manager.wait_for("READY=1");
        sidecar.signal(Signal::SIGTERM);
        let heard = manager.wait_for("STOPPING=1");
        assert!(!heard.iter().any(|words| words.contains("WATCHDOG")), "nobody asked for it: {heard:?}");
        assert_eq!(sidecar.exit_code(SOON), 0);
    }
}

#[test]
fn a_sidecar_that_cannot_start_is_never_ready() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let manager = Manager::new(UnixDatagram::bind(dir.join("notify")).unwrap());
    let options = Options::new().env("NOTIFY_SOCKET", dir.join("notify")).flag("quickjs-module-path", "/nonexistent");
    let mut sidecar = options.listen_on(&dir.join("s.sock"));
    assert_eq!(sidecar.exit_code(SOON), 5);
    assert_eq!(manager.hear(), None);
}

// ---- the watchdog ----

#[test]
fn the_watchdog_is_fed_while_idle_and_while_busy() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let manager = Manager::new(UnixDatagram::bind(dir.join("notify")).unwrap());
    let options = Options::new()
        .patient()
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let sidecar = options.flag("max-instances", 2).flag("timeout-ms", 0).listen();
    manager.wait_for("READY=1");
    manager.is_fed("while idle");
    let mut client = sidecar.connect();
    for _ in 0..4 {
        client.start("for (;;);");
    }
    eventually("the handlers run", SOON, || client.stats().active_instances == 2);
    manager.is_fed("a handler without a deadline may run");
}

#[test]
fn the_watchdog_is_not_fed_while_an_engine_thread_is_frozen() {
    let _w = Watchdog::seconds(60);
    for frozen in ["worker-", "watchdog"] {
        let dir = TempDir::new();
        let manager = Manager::new(UnixDatagram::bind(dir.join("notify")).unwrap());
        let options = Options::new().env("NOTIFY_SOCKET", dir.join("notify")).env("WATCHDOG_USEC", "600000");
        let mut sidecar = options.flag("max-instances", 1).listen();
        manager.wait_for("WATCHDOG=1");
        let tasks =
            fs::read_dir(format!("/proc/{}/task", of_guests(sidecar.pid()))).unwrap().map(|task| task.unwrap().path());
        let named = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|n| n.starts_with(frozen)));
        let threads: Vec<i32> =
            named.map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
        assert!(!threads.is_empty(), "no thread is called {frozen}");
        for thread in &threads {
            ptrace::seize(Pid::from_raw(*thread), ptrace::Options::empty()).expect("a thread can be seized");
            ptrace::interrupt(Pid::from_raw(*thread)).expect("a thread can be stopped");
        }
        // a beat that was under way may still arrive
        manager.hears("WATCHDOG=1", Duration::from_secs(1));
        assert!(!manager.hears("WATCHDOG=1", Duration::from_millis(1500)), "fed though {frozen} is frozen");
        assert!(sidecar.is_running());
        sidecar.signal(Signal::SIGKILL);
        // a thread that is traced has to be waited for before its process can be
        for thread in threads {
            while !matches!(
                waitpid(Pid::from_raw(thread), Some(WaitPidFlag::__WALL)),
                Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(_)
            ) {}
        }
        sidecar.wait(SOON);
    }
}

// ---- a socket that is handed in ----

fn with_environment_of(other: &Command, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// `serve` with descriptor 3 and the variables of sd_listen_fds(3), the process id filled in by a shell.
fn activated(dir: &Path, fd: OwnedFd, variables: &str) -> Command {
    let shell = command(dir);
    let script = format!("{variables} exec \"$0\" serve --log debug");
    // the shell ends up as the sidecar, so its own id is the right one
    let binary = shell.get_program().to_owned();
    let mut launcher = with_environment_of(&shell, "sh");
    launcher.arg("-c").arg(script).arg(binary).stdin(Stdio::null()).stderr(Stdio::piped());
    launcher.fd_mappings(vec![FdMapping { parent_fd: fd, child_fd: 3 }]).unwrap();
    launcher
}

#[test]
fn a_socket_that_is_handed_in_is_served_and_stays() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let path = dir.join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // a client that was there first is served when the sidecar is up
    let early = UnixStream::connect(&path).unwrap();
    let fd = listener.try_clone().unwrap().into();
    let mut child = activated(dir.path(), fd, "LISTEN_FDS=1 LISTEN_PID=$$").spawn().unwrap();
    let mut client = Client::over(early);
    client.hello();
    client.still_works();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(path.exists(), "it is the service manager's");
    let _waits = UnixStream::connect(&path).expect("the next one can wait in the queue");
}

#[test]
fn what_is_handed_in_wrongly_is_a_usage_error_that_says_why() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let listener = |name: &str| OwnedFd::from(UnixListener::bind(dir.join(name)).unwrap());
    let connected = UnixStream::pair().unwrap().0;
    let file = fs::File::create(dir.join("file")).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let datagram = UnixDatagram::unbound().unwrap();
    for (fd, variables, why) in [
        (listener("a"), "LISTEN_FDS=1 LISTEN_PID=1", "LISTEN_PID"),
        (listener("b"), "LISTEN_FDS=2 LISTEN_PID=$$", "LISTEN_FDS"),
        (listener("c"), "", "LISTEN_FDS is not set"),
        (connected.into(), "LISTEN_FDS=1 LISTEN_PID=$$", "Accept=no"),
        (file.into(), "LISTEN_FDS=1 LISTEN_PID=$$", "descriptor 3"),
        (tcp.into(), "LISTEN_FDS=1 LISTEN_PID=$$", "no Unix socket"),
        (datagram.into(), "LISTEN_FDS=1 LISTEN_PID=$$", "no stream socket"),
    ] {
        let output = activated(dir.path(), fd, variables).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{variables}: {stderr}");
        assert!(stderr.contains(why), "{why:?} is not in: {stderr}");
    }
}

// ---- the units ----

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/deploy").join(name)
}

fn systemd_analyze(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).output();
    let output = output.expect("systemd-analyze, which `cargo xtask test` installs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The units as they would be installed, but for a program that exists here.
fn installed(dir: &Path, from: &str) -> Vec<String> {
    let program = fs::canonicalize(binary()).unwrap();
    ["nexus-sidecar.service", "nexus-sidecar.socket"]
        .map(|name| {
            let text = fs::read_to_string(deploy(from).join(name)).unwrap();
            let text = text.replace("/usr/bin/nexus-sidecar", program.to_str().unwrap());
            let text = text.replace("%h/.local/bin/nexus-sidecar", program.to_str().unwrap());
            fs::write(dir.join(name), text).unwrap();
            dir.join(name).display().to_string()
        })
        .to_vec()
}

#[test]
fn the_units_are_understood_by_systemd_without_a_complaint() {
    let _w = Watchdog::seconds(60);
    for (from, manager) in [(".", "--system"), ("user", "--user")] {
        let dir = TempDir::new();
        let units = installed(dir.path(), from);
        let mut args = vec![manager, "--man=no", "verify"];
        args.extend(units.iter().map(String::as_str));
        let mut analyze = Command::new("systemd-analyze");
        let output = analyze.args(&args).env("XDG_RUNTIME_DIR", dir.path()).output().expect("systemd-analyze");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let about_ours: Vec<&str> = text.lines().filter(|line| line.contains("nexus-sidecar")).collect();
        assert!(output.status.success() && about_ours.is_empty(), "{from}: {text}");
    }
}

#[test]
fn the_unit_exposes_at_most_one_of_ten() {
    let _w = Watchdog::seconds(60);
    let unit = deploy("nexus-sidecar.service");
    let (_, text) = systemd_analyze(&["security", "--offline=true", "--no-pager", unit.to_str().unwrap()]);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{text}"));
    let level: f64 = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
    assert!(level <= 1.0, "{text}");
}

/// The system calls that the unit leaves, by the sets of the installed systemd.
fn allowed_by_the_unit() -> BTreeSet<String> {
    let members = |set: &str| {
        let (good, text) = systemd_analyze(&["syscall-filter", set]);
        assert!(good, "{text}");
        let lines = text.lines().filter_map(|line| line.strip_prefix("    ")).map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    fn expand(word: &str, members: &dyn Fn(&str) -> Vec<String>, into: &mut BTreeSet<String>) {
        if word.starts_with('@') {
            members(word).iter().for_each(|member| expand(member, members, into));
        } else {
            into.insert(word.to_owned());
        }
    }
    let unit = fs::read_to_string(deploy("nexus-sidecar.service")).unwrap();
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut named = BTreeSet::new();
        line.trim_start_matches('~').split(' ').for_each(|word| expand(word, &members, &mut named));
        if line.starts_with('~') {
            allowed = &allowed - &named;
        } else {
            allowed.extend(named);
        }
    }
    allowed
}

#[test]
fn a_sidecar_works_with_the_system_calls_that_the_unit_leaves() {
    let _w = Watchdog::seconds(120);
    let allowed = allowed_by_the_unit();
    assert!(allowed.len() > 100 && allowed.contains("read") && !allowed.contains("mount"), "{allowed:?}");
    let dir = TempDir::new();
    let (names, path, http) = (dir.join("names"), dir.join("s.sock"), dir.join("http.sock"));
    fs::write(&names, allowed.into_iter().collect::<Vec<_>>().join("\n")).unwrap();
    let plain = command(dir.path());
    let mut filtered = with_environment_of(&plain, env!("CARGO_BIN_EXE_under-filter"));
    filtered.stdin(Stdio::null()).stderr(Stdio::null());
    filtered.arg(&names).arg(plain.get_program()).arg("serve").arg("--listen").arg(&path);
    filtered.args(["--max-instances", "2", "--suspension-timeout-ms", "300", "--http-listen"]).arg(&http);
    let mut child = filtered.spawn().unwrap();
    eventually("it serves", SOON, || {
        assert_eq!(child.try_wait().unwrap(), None, "a system call is not allowed");
        UnixStream::connect(&path).is_ok()
    });
    let connect = || {
        let mut client = Client::over(UnixStream::connect(&path).unwrap());
        client.hello();
        client
    };
    let mut client = connect();
    every_kind(&mut client);
    client.run(Run::source("return await $ext.a.b()").grant(&["ext:a"]));
    eventually("the suspension expires", SOON, || client.stats().suspended_instances == 0);
    client.metrics();
    for _ in 0..20 {
        connect().start("return 'x'.repeat(1 << 20)");
    }
    assert!(get(&http, "/healthz").contains("alive\nisolation "));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP).unwrap();
    connect().still_works();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn the_filter_of_the_test_above_does_kill() {
    let _w = Watchdog::seconds(60);
    let dir = TempDir::new();
    let names = dir.join("names");
    let needed = allowed_by_the_unit().into_iter().filter(|name| name != "uname");
    fs::write(&names, needed.collect::<Vec<_>>().join("\n")).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_under-filter")).arg(&names).args(["uname", "-a"]).status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGSYS as i32), "{status}");
}
