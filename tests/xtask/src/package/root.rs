//! A root directory in which a program is tried out: only what was put there, seen by nobody else, in namespaces of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::npm::copy_tree;
use crate::places::remove;

/// The root, and how much of it a program sees.
pub struct Root {
    pub path: PathBuf,
    proc: bool,
    read_only: bool,
    /// The user that programs run as; root if none is said.
    user: Option<u32>,
    environment: Vec<(String, String)>,
    /// A folder of it that is mounted in a way of its own.
    mounted: Option<(String, Mounted)>,
    /// What a program may have, as the shell's `ulimit` takes it.
    limit: String,
}

#[derive(Clone, Copy)]
pub enum Mounted {
    /// Nothing may be executed from it.
    NoExec,
    /// Empty, with room for a megabyte.
    Small,
}

/// How a program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

/// Mounts what is wanted within a mount namespace of its own and goes there. $1: the root; $2: whether with /proc; $3: whether
/// read-only; $4: the user; $5: the folder that is mounted in a way of its own; $6: in which; $7: what is limited; then the program.
const ENTER: &str = r#"
set -e
mount --bind "$1" "$1"
[ "$2" = no ] || mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
case "$6" in
  noexec) mount --bind "$1$5" "$1$5"; mount -o remount,bind,noexec "$1$5" ;;
  small) mount -t tmpfs -o size=1m,mode=700 tmpfs "$1$5" ;;
esac
[ "$3" = no ] || mount -o remount,bind,ro "$1"
root=$1 user=$4 limit=$7
shift 7
[ -z "$limit" ] || ulimit $limit
exec chroot ${user:+--userspec=$user:$user} "$root" "$@"
"#;

impl Root {
    /// An empty one.
    pub fn new(path: &Path) -> Result<Self> {
        remove(path)?;
        for folder in ["proc", "tmp", "dev"] {
            fs::create_dir_all(path.join(folder))?;
        }
        Ok(Self::of(path))
    }

    /// One that is there.
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            proc: true,
            read_only: false,
            user: None,
            environment: vec![("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())],
            mounted: None,
            limit: String::new(),
        }
    }

    /// Puts a tree somewhere in it.
    pub fn put(&self, tree: &Path, at: impl AsRef<OsStr>) -> Result<()> {
        copy_tree(tree, &self.inside(at))
    }

    /// Where a path of it stands outside.
    pub fn inside(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let path = Path::new(path.as_ref());
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn without_proc(mut self) -> Self {
        self.proc = false;
        self
    }

    pub fn with_proc(mut self) -> Self {
        self.proc = true;
        self
    }

    pub fn read_only_as(mut self, user: u32) -> Self {
        self.read_only = true;
        self.user = Some(user);
        self
    }

    pub fn mounted(mut self, folder: &str, how: Mounted) -> Self {
        self.mounted = Some((folder.to_owned(), how));
        self
    }

    /// With what the shell's `ulimit` is given.
    pub fn limited(mut self, limit: &str) -> Self {
        limit.clone_into(&mut self.limit);
        self
    }

    pub fn without_mount(mut self) -> Self {
        self.mounted = None;
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.environment.push((name.into(), value.into()));
        }
        self
    }

    /// What runs a program of it, as the very process that is started.
    fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let word = |flag: bool| if flag { "yes" } else { "no" };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", ENTER, "sh"]).arg(&self.path);
        command.args([word(self.proc), word(self.read_only), &self.user.map(|id| id.to_string()).unwrap_or_default()]);
        let (folder, how) = match &self.mounted {
            None => ("", "no"),
            Some((folder, Mounted::NoExec)) => (folder.as_str(), "noexec"),
            Some((folder, Mounted::Small)) => (folder.as_str(), "small"),
        };
        command.args([folder, how, &self.limit]).args(words);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a program that goes on.
    pub fn start<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Child> {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("cannot start unshare")
    }

    /// Starts a program that goes on, and tells of it in a file.
    pub fn start_telling<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>, told: &Path) -> Result<Child> {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(told)?);
        command.spawn().context("cannot start unshare")
    }

    /// Starts a program that the kernel is to end with who starts it: a shell. Tells both, the program by its number.
    pub fn start_to_end_with_shell<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<(Child, u32)> {
        let command = self.command(words);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", r#"setpriv --pdeathsig KILL "$@" >/dev/null & echo $!; wait"#, "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().context("cannot start a shell")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.as_mut().context("no pipe")?).read_line(&mut line)?;
        Ok((shell, line.trim().parse().context("the shell tells no number")?))
    }

    /// Runs a program of it.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>, input: &str) -> Result<Ended> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().context("cannot start unshare")?;
        // Who ends without reading need not have read.
        let _ = child.stdin.take().context("no pipe")?.write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended { code: status.code(), out: text(stdout), err: text(stderr), took: started.elapsed() })
    }

    /// Runs a program that has to succeed; returns what it wrote.
    pub fn must<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>, input: &str) -> Result<Ended> {
        let words: Vec<S> = words.into_iter().collect();
        let line: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
        let ended = self.run(words, input)?;
        if ended.code != Some(0) {
            bail!(
                "`{}` in {} ended with {:?}:\n{}{}",
                line.join(" "),
                self.path.display(),
                ended.code,
                ended.out,
                ended.err
            );
        }
        Ok(ended)
    }
}
