//! The sidecar as a child process: started with one end of a socketpair, its log read, reaped for sure.
//!
//! Owned by the reader thread once the connection stands. Dropping it kills the child if it still runs, and waits for
//! it, so that no zombie stays.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nexus_protocol::limits::{CLIENT_LOG_LINE_BYTES, CLIENT_LOG_TAIL_LINES};

use crate::error::StartError;
use crate::slot::lock;
use crate::spawn::SpawnOptions;

/// The first descriptor after the standard ones.
const SIDECAR_FD: i32 = 3;

/// Longest pause between two looks at a child that is ending.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// What the thread that reads the last words may take, on a machine that is busy.
const LAST_WORDS: Duration = Duration::from_millis(1_000);

pub(crate) struct SidecarChild {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    log_reader: Option<JoinHandle<()>>,
}

impl SidecarChild {
    /// Starts a sidecar and returns it with this end of the connection.
    pub(crate) fn spawn(options: &SpawnOptions) -> Result<(Self, UnixStream), StartError> {
        let (mut command, path) = options.command(SIDECAR_FD)?;
        let failed = |source| StartError::Spawn { path: path.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
            .fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: SIDECAR_FD }])
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let mut child = command.spawn().map_err(failed)?;
        // The command holds the child's end, and only when that is closed here does the child's end show as EOF.
        drop(command);
        let stderr = child.stderr.take();
        // From here on dropping it reaps the child.
        let mut this = Self { child, log: Arc::default(), log_reader: None };
        if let Some(stderr) = stderr {
            let log = Arc::clone(&this.log);
            let reader = thread::Builder::new().name("nexus-log".to_owned()).spawn(move || read_log(stderr, &log));
            this.log_reader = Some(reader.map_err(failed)?);
        }
        Ok((this, ours))
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the child ended, if it does so within `patience`, and its last words.
    pub(crate) fn look(&mut self, patience: Duration) -> (Option<ExitStatus>, Vec<String>) {
        let exit = self.wait_until(Instant::now() + patience);
        if exit.is_some() {
            self.finish_log();
        }
        (exit, lock(&self.log).iter().cloned().collect())
    }

    fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        let mut pause = Duration::from_micros(200);
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => {}
                Ok(exit) => return exit,
                Err(_) => return None,
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the end of the child, which its connection's end asks it for; kills it after `grace`.
    pub(crate) fn end(&mut self, grace: Duration) -> (Option<ExitStatus>, Vec<String>) {
        if self.wait_until(Instant::now() + grace).is_none() {
            // Fails only for a child that has ended already.
            let _ = self.child.kill();
        }
        let exit = self.child.wait().ok();
        self.finish_log();
        (exit, lock(&self.log).iter().cloned().collect())
    }

    fn finish_log(&mut self) {
        if let Some(reader) = self.log_reader.take() {
            // Ends at the EOF that the child's end brings. A grandchild that holds stderr may keep it; then it is left.
            let deadline = Instant::now() + LAST_WORDS;
            while !reader.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Drop for SidecarChild {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Keeps the last lines and hands every line to this program's logger.
fn read_log(stderr: ChildStderr, log: &Mutex<VecDeque<String>>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end is taken in pieces, so that it cannot fill the memory.
        let read = (&mut stderr).take(CLIENT_LOG_LINE_BYTES as u64).read_until(b'\n', &mut line);
        if !matches!(read, Ok(length) if length > 0) {
            return;
        }
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        log::debug!(target: "nexus_sidecar", "{text}");
        let mut log = lock(log);
        if log.len() == CLIENT_LOG_TAIL_LINES {
            log.pop_front();
        }
        log.push_back(text);
    }
}
