//! Threads: the processor time that one has used, and whether it gives way to others.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, getpid, gettid};

/// CPU time that the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// One thread, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    clock: ClockId,
    number: Pid,
}

impl Thread {
    /// The calling one.
    pub fn this() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: has no precondition.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: the thread is the calling one, so it exists, and the clock's id is written to a place of our own.
        let failed = unsafe { libc::pthread_getcpuclockid(this, &mut clock) };
        (failed == 0).then(|| Self { clock: ClockId::from_raw(clock), number: gettid() })
    }

    /// How much CPU time it has used. Nothing once the thread is gone.
    pub fn cpu_time(&self) -> Option<Duration> {
        clock_gettime(self.clock).ok().map(Duration::from)
    }

    /// Has the thread give way to others from now on: see [`give_way_when_told`].
    pub fn is_to_give_way(&self) {
        let (process, thread) = (getpid().as_raw(), self.number.as_raw());
        // SAFETY: only numbers are handed over. A number that is no thread of this process any more is refused.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGURG) };
    }
}

/// How far behind a thread is that gives way: it has a ninth of the weight of one in front.
pub const BEHIND: libc::c_int = 10;

/// The niceness of this process, as it was started.
static NICENESS: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static GIVES_WAY: AtomicBool = const { AtomicBool::new(false) };
}

/// From now on threads of this process can be told to give way: they are then behind all that are not whenever one of these has something
/// to do, and have what is left beside them. Each does that by itself, when a signal tells it to, since nobody should be able to touch
/// threads of others for it. Sockets have that signal too, if they are told to send it; ours are not.
pub fn give_way_when_told() -> io::Result<()> {
    // SAFETY: only numbers are handed over. The process exists, so that what looks like an error is none.
    NICENESS.store(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }, Ordering::Relaxed);
    let flags = SaFlags::SA_RESTART | SaFlags::SA_ONSTACK;
    let action = SigAction::new(SigHandler::Handler(give_way), flags, SigSet::empty());
    // SAFETY: what the handler does may be done in one: a system call, and a store to a place that is there with the thread.
    unsafe { sigaction(Signal::SIGURG, &action)? };
    Ok(())
}

/// What interrupted it may be about to look at its error.
extern "C" fn give_way(_: libc::c_int) {
    let error = Errno::last_raw();
    if set_niceness((NICENESS.load(Ordering::Relaxed) + BEHIND).min(19)) {
        GIVES_WAY.with(|gives_way| gives_way.store(true, Ordering::Relaxed));
    }
    Errno::set_raw(error);
}

/// Whether threads of this process that give way can come to the front again. Tried once, by a thread that ends with it: where it cannot,
/// it stays behind.
fn can_step_forward() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let niceness = NICENESS.load(Ordering::Relaxed);
        let comes_back = move || niceness < 19 && set_niceness(niceness + 1) && set_niceness(niceness);
        thread::Builder::new().spawn(comes_back).is_ok_and(|tried| tried.join().unwrap_or_default())
    })
}

/// The calling thread gives way to others from now on, if it can come to the front again by itself: see [`step_forward`].
pub fn step_back() {
    if can_step_forward() {
        give_way(0);
    }
}

/// The calling thread gives way no more. False: the kernel does not let it, which wants a limit (`RLIMIT_NICE`) or a privilege for that.
pub fn step_forward() -> bool {
    GIVES_WAY.with(|gives_way| {
        if !gives_way.load(Ordering::Relaxed) {
            return true;
        }
        let is_in_front = set_niceness(NICENESS.load(Ordering::Relaxed));
        if is_in_front {
            gives_way.store(false, Ordering::Relaxed);
        }
        is_in_front
    })
}

/// Whether the calling thread gives way.
#[cfg(test)]
pub fn is_behind() -> bool {
    GIVES_WAY.with(|gives_way| gives_way.load(Ordering::Relaxed))
}

/// Of the calling thread.
fn set_niceness(niceness: libc::c_int) -> bool {
    // SAFETY: only numbers are handed over.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_when_it_is_told_and_no_other_does() {
        // SAFETY: only numbers are handed over; the calling thread exists.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, gettid().as_raw() as libc::id_t) };
        give_way_when_told().unwrap();
        let before = niceness();
        std::thread::spawn(move || {
            Thread::this().unwrap().is_to_give_way();
            let behind = (before + BEHIND).min(19);
            assert_eq!(niceness(), behind);
            let is_in_front = step_forward();
            assert_eq!(niceness(), if is_in_front { before } else { behind });
            assert_eq!(step_forward(), is_in_front, "it knows where it is");
            step_forward();
            let there = niceness();
            step_back();
            assert_eq!(niceness(), if is_in_front { behind } else { there }, "back only where it comes forward again");
            assert_eq!(step_forward(), is_in_front);
        })
        .join()
        .unwrap();
        assert_eq!(niceness(), before);
    }
}
