//! The process that spawned this one, and whether it is still there. One that is nothing but this program under another name
//! (`npx nexus-sidecar`) says so, and this one ends with it, whatever ends it.
//!
//! The end of the socket says so first, wherever nobody else holds its other end. These are for the rest: a handle that
//! becomes readable when the parent process ends, and a signal from the kernel. That signal comes when the *thread* ends
//! that spawned us, so it is only a reason to look.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getppid};

use super::signals::PARENT_SIGNAL;
use crate::os;

/// Names the process that this one stands for and ends with: Node cannot become another program.
pub const STANDS_FOR_VARIABLE: &str = "NEXUS_STANDS_FOR";

/// Has this process asked to end when the one ends that it stands for, `value` being the variable's.
pub fn end_with_caller(value: Option<&str>) {
    let Some(caller) = value.and_then(|value| value.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw) else {
        return;
    };
    // a shell that came between waits for this one; its end is none of the caller's
    if getppid() == caller
        && let Err(e) = prctl::set_pdeathsig(Signal::SIGTERM)
    {
        log::debug!("no signal at the caller's end: {e}");
    }
    // had it ended before that line, this tells
    if kill(caller, None) == Err(Errno::ESRCH) {
        let _ = raise(Signal::SIGTERM);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Parent {
    pid: Pid,
    handle: Option<OwnedFd>,
}

impl Parent {
    /// The parent of this process. Signals have to be taken already.
    pub fn find() -> Self {
        let pid = getppid();
        // 0: it lives in a namespace that we cannot see, and the socket alone has to tell
        let handle = if pid.as_raw() > 0 { os::open_process(pid).ok() } else { None };
        if let Err(e) = prctl::set_pdeathsig(PARENT_SIGNAL) {
            log::debug!("no signal at the parent's end: {e}");
        }
        // had it ended between the two lines above, this tells
        Self { pid, handle }
    }

    /// A process whose parent ended has another one.
    pub fn is_gone(&self) -> bool {
        getppid() != self.pid
    }

    /// Readable when the parent has ended.
    pub fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(AsFd::as_fd)
    }
}
