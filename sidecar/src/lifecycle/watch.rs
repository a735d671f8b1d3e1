//! From the first request to the end of the process.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::parent::Parent;
use super::served::Served;
use super::signals::Signals;
use super::systemd::{Beat, Notifier};
use crate::exit::ExitCode;
use crate::server::Mode;

/// Where the end of the process is announced, by any thread; the first word counts.
#[derive(Debug)]
pub struct Exit {
    code: OnceLock<ExitCode>,
    bell: UnixStream,
    heard: UnixStream,
}

impl Exit {
    pub fn new() -> io::Result<Self> {
        let (bell, heard) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok(Self { code: OnceLock::new(), bell, heard })
    }

    pub fn announce(&self, code: ExitCode) {
        let _ = self.code.set(code);
        let _ = (&self.bell).write(&[1]);
    }

    /// What was announced, if anything was.
    pub fn announced(&self) -> Option<ExitCode> {
        self.code.get().copied()
    }

    /// Sleeps until it is announced.
    pub fn wait(&self) -> ExitCode {
        loop {
            if let Some(code) = self.code.get() {
                return *code;
            }
            let _ = poll(&mut [PollFd::new(self.heard.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            drain(&self.heard);
        }
    }
}

/// What the main thread watches over.
pub struct Lifecycle<'a> {
    pub server: Arc<dyn Served>,
    pub signals: Signals,
    pub exit: Arc<Exit>,
    /// In child mode.
    pub parent: Option<Parent>,
    pub notifier: Notifier,
    /// How long what is told to end may take, where nothing else sees to that.
    pub patience: Option<&'a dyn Fn() -> Duration>,
    /// Reads the configuration again.
    pub reload: &'a mut dyn FnMut(),
}

impl Lifecycle<'_> {
    /// Sleeps and reacts until the process is to end.
    pub fn watch(&mut self) -> ExitCode {
        let mut end_by: Option<Instant> = None;
        let mut beat = self.notifier.watchdog_interval().map(|interval| Beat::new(&*self.server, interval));
        loop {
            if let Some(code) = self.exit.code.get() {
                return *code;
            }
            if self.parent.as_ref().is_some_and(Parent::is_gone) {
                log::info!("the parent is gone");
                return ExitCode::ParentGone;
            }
            if end_by.is_some_and(|end_by| Instant::now() >= end_by) {
                log::error!("what was told to end has not ended in time");
                return ExitCode::Stuck;
            }
            self.sleep(beat.as_ref().map(Beat::due).into_iter().chain(end_by).min());
            drain(&self.exit.heard);
            for _ in 0..drain(&self.signals.end) {
                self.told_to_end();
                let patience = self.patience.map(|patience| patience());
                end_by = end_by.or_else(|| Instant::now().checked_add(patience?));
            }
            if drain(&self.signals.reload) > 0 {
                self.notifier.reloading();
                (self.reload)();
                self.notifier.ready();
            }
            if drain(&self.signals.parent) > 0 && self.parent.as_ref().is_some_and(|p| !p.is_gone()) {
                // the thread that made us has ended, and its process lives
                log::debug!("told that the parent may be gone; it is not");
            }
            if let Some(beat) = &mut beat
                && beat.tick(&*self.server, Instant::now())
            {
                self.notifier.alive();
            }
        }
    }

    fn told_to_end(&self) {
        if self.server.is_draining() {
            log::warn!("told to end twice: ending at once");
            self.exit.announce(ExitCode::Ok);
        } else {
            log::info!("told to end: finishing what is under way");
            self.notifier.stopping();
            self.server.drain();
        }
    }

    fn sleep(&self, until: Option<Instant>) {
        let mut fds: Vec<PollFd<'_>> = [
            self.exit.heard.as_fd(),
            self.signals.end.as_fd(),
            self.signals.reload.as_fd(),
            self.signals.parent.as_fd(),
        ]
        .into_iter()
        .chain(self.parent.as_ref().and_then(Parent::handle))
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        // interrupted or not: every cause is looked at after each sleep
        let _ = poll(&mut fds, timeout);
    }
}

/// How many bytes were there to read.
fn drain(stream: &UnixStream) -> usize {
    let (mut count, mut bytes) = (0, [0; 16]);
    let mut stream = stream;
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        count += n;
    }
    count
}

/// Whether the process is to end before it serves, and with what.
pub fn interrupted(signals: &Signals, parent: Option<&Parent>) -> Option<ExitCode> {
    if parent.is_some_and(Parent::is_gone) {
        log::info!("the parent is gone");
        return Some(ExitCode::ParentGone);
    }
    let told = drain(&signals.end) > 0;
    if told {
        log::info!("told to end: nothing is under way");
    }
    told.then_some(ExitCode::Ok)
}

/// Whether a server in this mode has a parent to look after.
pub fn parent_of(mode: Mode) -> Option<Parent> {
    match mode {
        Mode::Child => Some(Parent::find()),
        Mode::Service => None,
    }
}
