//! A machine of its own: systemd as process 1 in a container over this system's `/usr`, with everything else empty; or over a root
//! directory that somebody made for it, which keeps what is done in it.
//!
//! It needs root and `systemd-nspawn`. Nothing of the host is changed: its `/usr` is seen read-only, the rest is in memory and
//! gone with the machine. Nothing is registered with a service manager of the host, and none is needed.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::temp::TempDir;

const BOOT_LIMIT: Duration = Duration::from_secs(60);
const HALT_LIMIT: Duration = Duration::from_secs(20);

/// See the module. It is halted when this goes.
pub struct Machine {
    nspawn: Child,
    /// Its process 1, as the host numbers it.
    leader: u32,
    dir: TempDir,
    name: String,
}

/// What of the host is seen in the machine, and where. Read-only unless it is said to be writable.
#[derive(Clone, Debug)]
pub struct Bind {
    pub from: PathBuf,
    pub to: PathBuf,
    pub writable: bool,
}

impl Bind {
    pub fn read_only(from: &Path, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.into(), writable: false }
    }

    pub fn writable(from: &Path, to: &str) -> Self {
        Self { writable: true, ..Self::read_only(from, to) }
    }
}

impl Machine {
    /// Starts it and waits until its service manager answers.
    pub fn boot(binds: &[Bind]) -> Result<Self, String> {
        Self::start(&["--directory=/", "--volatile=yes"], binds)
    }

    /// The same over a root directory.
    pub fn boot_root(root: &Path) -> Result<Self, String> {
        Self::start(&[&format!("--directory={}", root.display())], &[])
    }

    fn start(over: &[&str], binds: &[Bind]) -> Result<Self, String> {
        let dir = TempDir::new();
        let name = format!("nexus-{}", std::process::id());
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--boot", "--console=pipe"]).args(over);
        command.arg(format!("--machine={name}"));
        if !Path::new("/run/systemd/system").exists() {
            // nobody is there who could make a scope
            command.arg("--keep-unit");
        }
        for Bind { from, to, writable } in binds {
            let word = if *writable { "--bind" } else { "--bind-ro" };
            command.arg(format!("{word}={}:{}", from.display(), to.display()));
        }
        let console = fs::File::create(dir.join("console")).map_err(|e| e.to_string())?;
        command.stdin(Stdio::null()).stderr(console.try_clone().map_err(|e| e.to_string())?).stdout(console);
        let nspawn = command.spawn().map_err(|e| format!("systemd-nspawn: {e}"))?;
        let mut machine = Self { nspawn, leader: 0, dir, name };
        let until = Instant::now() + BOOT_LIMIT;
        loop {
            if let Ok(Some(status)) = machine.nspawn.try_wait() {
                return Err(format!("systemd-nspawn ended with {status}: {}", machine.console()));
            }
            machine.leader = machine.find_leader().unwrap_or(0);
            let state = machine.shell("systemctl is-system-running").unwrap_or_default();
            if machine.leader != 0 && ["running", "degraded"].contains(&state.as_str()) {
                return Ok(machine);
            }
            if Instant::now() > until {
                return Err(format!("it does not boot: {}", machine.console()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn find_leader(&self) -> io::Result<u32> {
        let nspawn = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))?;
        let leader = children.split(' ').find_map(|pid| pid.parse().ok()).ok_or(io::ErrorKind::NotFound)?;
        // before it has become systemd it is in the host's place still
        match fs::read_to_string(format!("/proc/{leader}/comm"))?.trim() {
            "systemd" => Ok(leader),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// What process 1 wrote.
    pub fn console(&self) -> String {
        fs::read_to_string(self.dir.join("console")).unwrap_or_default()
    }

    /// Runs a program inside.
    pub fn run(&self, words: &[&str]) -> io::Result<Output> {
        let target = self.leader.to_string();
        let mut command = Command::new("nsenter");
        command.args([
            "--target", &target, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/",
        ]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(words).stdin(Stdio::null()).output()
    }

    /// Runs a script inside. What it printed, whether or not it ended well: `systemctl` tells states by exit codes.
    pub fn shell(&self, script: &str) -> io::Result<String> {
        let output = self.run(&["sh", "-c", script])?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned())
    }

    /// A path of the machine, as the host reaches it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader))
    }

    pub fn connect(&self, inside: &str) -> io::Result<UnixStream> {
        UnixStream::connect(self.path(inside))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.nspawn.id() as i32), Signal::SIGTERM);
        let until = Instant::now() + HALT_LIMIT;
        while self.nspawn.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > until {
                let _ = self.nspawn.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
        // where no service manager of the host cleans up
        let _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&self.name));
        for hierarchy in ["unified", "systemd", "."] {
            for group in ["payload/init.scope", "payload", "supervisor"] {
                let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(hierarchy).join(group));
            }
        }
    }
}
