//! Sidecars as child processes. Each is killed when its handle goes, or when a watchdog ends the test.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::client::Client;
use crate::profile::Profile;
use crate::temp::TempDir;

/// Longer than any start on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// One page.
const SMALLEST_PIPE: i32 = 4096;

/// Children that a watchdog has to end.
static LIVING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Ends every sidecar of this process, without waiting.
pub fn kill_all() {
    for pid in locked(&LIVING).iter() {
        let _ = signal::kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program under test: `NEXUS_SIDECAR_BIN`, else the release build of this checkout.
pub fn binary() -> PathBuf {
    let found = std::env::var_os("NEXUS_SIDECAR_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/nexus-sidecar"), PathBuf::from);
    assert!(
        found.is_file(),
        "there is no sidecar at {}: build one with `cargo build --release -p nexus-sidecar`, or name one in NEXUS_SIDECAR_BIN",
        found.display()
    );
    found
}

/// A command that starts from a known environment: no setting and no cache of whoever runs the tests.
pub fn command(cache: &Path) -> Command {
    command_of(&binary(), cache)
}

/// To a process that is there.
pub fn send_signal(pid: u32, signal: Signal) {
    signal::kill(Pid::from_raw(pid as i32), signal).expect("the process is there");
}

/// The same program with faults that a test can plan, beside the other.
fn faulty_binary() -> PathBuf {
    let found = binary().with_file_name("nexus-sidecar-faults");
    assert!(
        found.is_file(),
        "there is no {}: build it with `cargo build --release -p nexus-sidecar --features faults --bin nexus-sidecar-faults`",
        found.display()
    );
    found
}

fn command_of(program: &Path, cache: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXUS_")) {
        command.env_remove(name);
    }
    // one run of the suite for each place where guests may run
    if let Some(isolation) = std::env::var_os("NEXUS_TEST_ISOLATION") {
        command.env("NEXUS_ISOLATION", isolation);
    }
    command.env("XDG_CACHE_HOME", cache).stdin(Stdio::null());
    command
}

/// Handlers that are in a cache's directory. They are written after the answer, and not where many wait to be written.
pub fn handlers_on_disk(cache: &Path) -> usize {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "qjsc")).count()
}

/// Puts a plan of faults into its file, in one step and in place: whoever reads it may have it open for good.
pub fn write_plan(path: &Path, plan: &str) {
    const BYTES: usize = 4096;
    assert!(plan.len() <= BYTES, "a plan is short");
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(path).expect("a file of ours");
    file.write_all_at(format!("{plan:BYTES$}").as_bytes(), 0).expect("a file of ours");
}

/// Whether a sidecar with faults was built.
pub fn has_faults() -> bool {
    binary().with_file_name("nexus-sidecar-faults").is_file()
}

/// How a sidecar is started: flags of `serve`, and environment.
#[derive(Clone, Debug, Default)]
pub struct Options {
    flags: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    profile: Profile,
    faults: bool,
    unread_stderr: bool,
    keeps_niceness: bool,
}

impl Options {
    pub fn new() -> Self {
        Self::default()
    }

    /// With a worker for each connection, of which there may be so many.
    pub fn worker_each(self, most: u64) -> Self {
        self.flag("isolation", "connection").flag("max-workers", most)
    }

    /// See [`Profile::Patient`].
    #[must_use]
    pub fn patient(self) -> Self {
        self.profile(Profile::Patient)
    }

    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// `--name value`.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.push(format!("--{name}").into());
        self.flags.push(value.to_string().into());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Faults by plan: see `sidecar/src/faults.rs`.
    #[must_use]
    pub fn faults(mut self, plan: &str) -> Self {
        self.faults = true;
        self.env("NEXUS_FAULTS", plan)
    }

    /// Nobody reads what it writes to stderr, which is the smallest of pipes.
    #[must_use]
    pub fn unread_stderr(mut self) -> Self {
        self.unread_stderr = true;
        self
    }

    #[must_use]
    pub fn debug(self) -> Self {
        self.flag("debug", true)
    }

    /// Serves a socket of its own; ready when this returns.
    pub fn listen(&self) -> Sidecar {
        let dir = TempDir::new();
        let path = dir.join("sidecar.sock");
        let sidecar = self.start_on(&path, dir);
        sidecar.wait_until_ready();
        sidecar
    }

    /// Serves `path`, which is somebody else's; not ready yet.
    pub fn listen_on(&self, path: &Path) -> Sidecar {
        self.start_on(path, TempDir::new())
    }

    fn start_on(&self, path: &Path, dir: TempDir) -> Sidecar {
        let mut command = self.command(dir.path());
        command.arg("--listen").arg(path).args(&self.flags);
        Sidecar::start(command, dir, Some(path.to_owned()), self.unread_stderr)
    }

    /// A child that serves one inherited socket, with the other end of it, hello done.
    pub fn child(&self) -> (Sidecar, Client) {
        let (sidecar, ours) = self.child_stream();
        let mut client = Client::over(ours);
        client.hello();
        (sidecar, client)
    }

    /// As for most users: a thread that has given way to others may not come to the front again.
    #[must_use]
    pub fn without_priorities(mut self) -> Self {
        self.keeps_niceness = true;
        self
    }

    /// As `child`, without hello.
    pub fn child_stream(&self) -> (Sidecar, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let dir = TempDir::new();
        let mut command = self.command(dir.path());
        command.args(["--fd", "3"]).args(&self.flags);
        let mapping = FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: 3 };
        command.fd_mappings(vec![mapping]).expect("one mapping cannot collide");
        (Sidecar::start(command, dir, None, self.unread_stderr), ours)
    }

    fn command(&self, cache: &Path) -> Command {
        let program = if self.faults { faulty_binary() } else { binary() };
        let mut command = if self.keeps_niceness {
            // the program takes the place of the one that starts it
            let mut command = command_of(Path::new("setpriv"), cache);
            command.args(["--bounding-set", "-sys_nice", "--inh-caps", "-sys_nice"]).arg(program);
            command
        } else {
            command_of(&program, cache)
        };
        // flags go before the environment; a file comes behind it, so whoever has one says everything there
        if !self.flags.iter().any(|flag| flag == "--config") {
            command.envs(self.profile.variables());
        }
        command.arg("serve").envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    ended: Option<ExitStatus>,
    path: Option<PathBuf>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    unread: Option<PipeReader>,
    readers: Vec<thread::JoinHandle<()>>,
    dir: TempDir,
}

impl Sidecar {
    fn start(mut command: Command, dir: TempDir, path: Option<PathBuf>, unread_stderr: bool) -> Self {
        command.stdout(Stdio::piped());
        let (err, theirs) = io::pipe().expect("a pipe");
        if unread_stderr {
            // before there is anything in it
            fcntl(&err, FcntlArg::F_SETPIPE_SZ(SMALLEST_PIPE)).expect("a pipe can be small");
        }
        command.stderr(theirs);
        let mut child = command.spawn().expect("the sidecar can be spawned");
        // the mapped descriptors belong to the command; ours must not keep the child's socket open
        drop(command);
        locked(&LIVING).push(child.id());
        let (stdout, out) = collect(child.stdout.take().expect("piped"));
        let (stderr, readers) = (Arc::default(), vec![out]);
        let mut sidecar = Self { child, ended: None, path, stdout, stderr, unread: Some(err), readers, dir };
        if !unread_stderr {
            sidecar.read_stderr();
        }
        sidecar
    }

    /// Begins to read what was left unread.
    pub fn read_stderr(&mut self) {
        let (stderr, reader) = collect(self.unread.take().expect("not read yet"));
        self.stderr = stderr;
        self.readers.push(reader);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self) -> &Path {
        self.path.as_deref().expect("a sidecar that listens")
    }

    /// A new connection, hello done.
    pub fn connect(&self) -> Client {
        let mut client = self.connect_silently();
        client.hello();
        client
    }

    /// As `connect`; None: it is refused.
    pub fn try_connect(&self) -> Option<Client> {
        let mut client = self.connect_silently();
        client.try_hello().then_some(client)
    }

    /// A new connection that has sent nothing.
    pub fn connect_silently(&self) -> Client {
        Client::over(
            UnixStream::connect(self.path()).unwrap_or_else(|e| panic!("cannot connect: {e}; {}", self.stderr())),
        )
    }

    pub fn wait_until_ready(&self) {
        let until = Instant::now() + START_LIMIT;
        while UnixStream::connect(self.path()).is_err() {
            assert!(Instant::now() < until, "not ready: {}", self.stderr());
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.child.id(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended.is_none()
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        crate::eventually("the sidecar ends", limit, || !self.is_running());
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.ended.expect("it has ended")
    }

    /// Waits for the end and returns the exit code; panics when a signal ended it.
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        let status = self.wait(limit);
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {}", status.signal(), self.stderr()))
    }

    /// kill -9, and waits.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.wait(crate::SOON);
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&locked(&self.stdout)).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&locked(&self.stderr)).into_owned()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let by_itself = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = self.child.id();
        locked(&LIVING).retain(|living| *living != pid);
        if thread::panicking() {
            if let Ok(Some(status)) = by_itself {
                eprintln!("the sidecar had ended: {status}");
            }
            eprintln!("stderr of the sidecar: {}", self.stderr());
        }
    }
}

type Collected = (Arc<Mutex<Vec<u8>>>, thread::JoinHandle<()>);

fn collect(mut from: impl Read + Send + 'static) -> Collected {
    let into: Arc<Mutex<Vec<u8>>> = Arc::default();
    let writer = into.clone();
    let thread = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            locked(&writer).extend_from_slice(&buffer[..n]);
        }
    });
    (into, thread)
}
