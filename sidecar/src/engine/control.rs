//! Who may touch a guest's memory when: the hand-over between the thread that runs it and the watchdog.
//!
//! ```text
//!            begin            enter_host
//!   Idle ------------> Running <--------> Host          (the running thread)
//!    ^                 |  ^   |
//!    +------- end -----+  |   | watchdog: only from Running
//!                         v   v
//!                       Watchdog ----> Killed --> Gone  (the watchdog thread; memory is gone for good)
//! ```
//!
//! The watchdog first sets the interrupt word, which QuickJS polls, and after a grace period takes the memory away, which
//! stops native code anywhere. It never does so while the guest is inside a host call: a fault there would be in Rust code.
//! A guest that makes one host call after the other is hardly ever found outside of one, so each call looks for itself
//! whether the run is due: the first one then is refused, and after the grace period it traps.
//! Whoever owns the running thread asks `overdue` whether both steps were in vain, and gives the thread up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{KILL_GRACE_MS, RETIRE_GRACE_MS};

use super::ffi::LinearMemory;
use crate::faults::{self, Point};
pub use crate::token::StopCause;

const KILL_GRACE_MICROS: u64 = KILL_GRACE_MS * 1000;
const RETIRE_GRACE_MICROS: u64 = RETIRE_GRACE_MS * 1000;

/// How a stopped run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nobody interfered, or the interrupt word was enough: the memory is as the guest left it.
    Intact(Option<StopCause>),
    /// The memory was taken away: the instance can only be dropped.
    Killed(StopCause),
    /// A host call was begun and never left: a fault in it became a trap of the guest.
    Abandoned,
}

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const HOST: u8 = 2;
const WATCHDOG: u8 = 3;
const KILLED: u8 = 4;
const GONE: u8 = 5;

// whose the outcome of a run is: decided once, by whoever comes first
const OPEN: u8 = 0;
const CLAIMED: u8 = 1;
const GIVEN_UP: u8 = 2;

const NO_DEADLINE: u64 = u64::MAX;

/// Monotonic time in microseconds since `epoch`.
fn micros_since(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_micros()).unwrap_or(u64::MAX)
}

/// What becomes of a host call.
#[derive(Debug)]
pub enum Entry<'a> {
    /// It happens.
    Open(HostCallGuard<'a>),
    /// It does not: the run is over its time, and the guest is told to end it.
    Refused,
    /// The memory is gone: return at once and touch nothing.
    Gone,
}

/// While it lives, the guest's memory stays; also when the host call panics.
#[derive(Debug)]
pub struct HostCallGuard<'a>(&'a RunControl);

impl Drop for HostCallGuard<'_> {
    fn drop(&mut self) {
        self.0.state.store(RUNNING, Ordering::Release);
    }
}

/// Shared by an instance (which runs) and the watchdog (which stops).
#[derive(Debug)]
pub struct RunControl {
    state: AtomicU8,
    cause: AtomicU8,
    epoch: Instant,
    deadline: AtomicU64,
    /// When the watchdog first found that the run has to end.
    due_since: AtomicU64,
    interrupted_at: AtomicU64,
    /// A host call was refused since the run is due.
    refused: AtomicBool,
    interrupt_word: AtomicU32,
    fate: AtomicU8,
    memory: LinearMemory,
}

impl RunControl {
    /// `interrupt_word`: address of the word in linear memory that stops QuickJS.
    pub fn new(memory: LinearMemory, interrupt_word: u32) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(IDLE),
            cause: AtomicU8::new(0),
            epoch: Instant::now(),
            deadline: AtomicU64::new(NO_DEADLINE),
            due_since: AtomicU64::new(NO_DEADLINE),
            interrupted_at: AtomicU64::new(NO_DEADLINE),
            refused: AtomicBool::new(false),
            interrupt_word: AtomicU32::new(interrupt_word),
            fate: AtomicU8::new(OPEN),
            memory,
        })
    }

    // ---- the running thread ----

    /// From here on a `stop` means the next run, or the one in progress. Whoever may stop it learns of it after this.
    pub fn arm(&self) {
        self.cause.store(0, Ordering::SeqCst);
        self.fate.store(OPEN, Ordering::Release);
    }

    /// The guest is about to run. A stop since `arm` still counts.
    pub fn begin(&self, deadline: Option<Instant>) {
        debug_assert_eq!(self.state.load(Ordering::Relaxed), IDLE);
        self.due_since.store(NO_DEADLINE, Ordering::Relaxed);
        self.interrupted_at.store(NO_DEADLINE, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
        let at = deadline.map_or(NO_DEADLINE, |d| micros_since(self.epoch, d));
        self.deadline.store(at, Ordering::SeqCst);
        if self.cause.load(Ordering::SeqCst) != 0 {
            self.deadline.store(0, Ordering::Relaxed);
        }
        // sequentially consistent with the watchdog's `asleep`: one of the two sees the other
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    /// The guest has returned or trapped.
    pub fn end(&self) -> Ended {
        let cause = || match self.cause.swap(0, Ordering::AcqRel) {
            0 => None,
            c if c == StopCause::Cancelled as u8 => Some(StopCause::Cancelled),
            _ => Some(StopCause::Deadline),
        };
        if self.leave(RUNNING, IDLE) {
            return Ended::Intact(cause());
        }
        match self.state.swap(GONE, Ordering::AcqRel) {
            HOST => Ended::Abandoned,
            _ => Ended::Killed(cause().unwrap_or(StopCause::Deadline)),
        }
    }

    /// What the run has done counts from here on, unless it was given up before: then its request is answered already, and
    /// nothing of it may become visible.
    pub fn claim(&self) -> bool {
        let fate = self.fate.compare_exchange(OPEN, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
        !matches!(fate, Err(GIVEN_UP))
    }

    /// A host call begins.
    pub fn enter_host(&self) -> Entry<'_> {
        if !self.leave(RUNNING, HOST) {
            return Entry::Gone;
        }
        if self.due_since.load(Ordering::Relaxed) != NO_DEADLINE {
            return self.enter_host_late();
        }
        Entry::Open(HostCallGuard(self))
    }

    /// In a host call, after the watchdog has found that the run has to end.
    #[cold]
    fn enter_host_late(&self) -> Entry<'_> {
        let now = micros_since(self.epoch, Instant::now());
        let _ = self.cause.compare_exchange(0, StopCause::Deadline as u8, Ordering::AcqRel, Ordering::Relaxed);
        let interrupted_at = self.interrupted_at.load(Ordering::Relaxed);
        if interrupted_at == NO_DEADLINE {
            let _ = self.memory.store_u32(self.interrupt_word.load(Ordering::Relaxed), 1);
            self.interrupted_at.store(now, Ordering::Relaxed);
        } else if now >= interrupted_at.saturating_add(KILL_GRACE_MICROS) {
            self.state.store(KILLED, Ordering::Release);
            return Entry::Gone;
        }
        let guard = HostCallGuard(self);
        // once: what the handler has changed is still handed over while it ends
        if self.refused.swap(true, Ordering::Relaxed) { Entry::Open(guard) } else { Entry::Refused }
    }

    /// Moves on from a state that only the watchdog changes under us, waiting the few microseconds that it needs. Nobody but
    /// this thread leaves HOST.
    fn leave(&self, from: u8, to: u8) -> bool {
        loop {
            match self.state.compare_exchange_weak(from, to, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(KILLED | HOST) => return false,
                Err(_) => std::hint::spin_loop(),
            }
        }
    }

    // ---- other threads ----

    /// Asks for the end of what runs now. The caller makes sure that it still is what it wants to stop.
    pub fn stop(&self, cause: StopCause) {
        let _ = self.cause.compare_exchange(0, cause as u8, Ordering::SeqCst, Ordering::Relaxed);
        self.deadline.store(0, Ordering::SeqCst);
    }

    /// Its thread is replaced: whatever becomes of it, nobody waits for it any more. False: it has ended by now, and what it
    /// did counts.
    pub fn give_up(&self) -> bool {
        let fate = self.fate.compare_exchange(OPEN, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        !matches!(fate, Err(CLAIMED))
    }

    /// What the instance holds of memory at this moment. Slow: it asks the kernel for each page.
    pub fn resident_bytes(&self) -> Option<u64> {
        self.memory.resident_bytes()
    }

    /// Whether it still runs and somebody waits for it, `by` after its deadline or after it was told to stop.
    pub fn is_overdue(&self, now: Instant, by: Duration) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        let ends = [self.interrupted_at.load(Ordering::Relaxed), self.deadline.load(Ordering::Acquire)];
        // a deadline of 0 means "now", and does not say since when
        let Some(end) = ends.into_iter().find(|at| *at != NO_DEADLINE && *at != 0) else { return false };
        let late = end.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
        !matches!(state, IDLE | GONE)
            && self.fate.load(Ordering::Acquire) != GIVEN_UP
            && micros_since(self.epoch, now) > late
    }

    /// One look of the watchdog. True while something runs.
    pub fn patrol(&self, now: Instant) -> bool {
        let state = self.state.load(Ordering::SeqCst);
        if state == IDLE || state == GONE {
            return false;
        }
        let now = micros_since(self.epoch, now);
        if now < self.deadline.load(Ordering::Acquire) {
            return true;
        }
        if self.due_since.load(Ordering::Relaxed) == NO_DEADLINE {
            self.due_since.store(now, Ordering::Relaxed);
        }
        let interrupted_at = self.interrupted_at.load(Ordering::Relaxed);
        let kill = interrupted_at != NO_DEADLINE;
        if kill && now < interrupted_at.saturating_add(KILL_GRACE_MICROS) {
            return true;
        }
        if self.state.compare_exchange(RUNNING, WATCHDOG, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return true; // in a host call, killed, or just ended: look again at the next tick
        }
        let _ = self.cause.compare_exchange(0, StopCause::Deadline as u8, Ordering::AcqRel, Ordering::Relaxed);
        let mut next = RUNNING;
        if kill {
            match faults::io(Point::Kill).and_then(|()| self.memory.revoke()) {
                Ok(()) => next = KILLED,
                Err(e) => {
                    log::error!("cannot take the memory of a run away: {e}");
                    self.interrupted_at.store(now, Ordering::Relaxed);
                }
            }
        } else {
            let _ = self.memory.store_u32(self.interrupt_word.load(Ordering::Relaxed), 1);
            self.interrupted_at.store(now, Ordering::Relaxed);
        }
        self.state.store(next, Ordering::Release);
        true
    }

    /// The time up to `now` is not counted as one in which the run could have come back.
    pub fn forgive(&self, now: Instant) {
        let due = self.due_since.load(Ordering::Relaxed);
        if due != NO_DEADLINE {
            let _ = self.due_since.compare_exchange(
                due,
                micros_since(self.epoch, now),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Why this run had to end, if it should have long ago and has not: its thread is stuck where nothing reaches it.
    pub fn overdue(&self, now: Instant) -> Option<StopCause> {
        let due_since = self.due_since.load(Ordering::Relaxed);
        if due_since == NO_DEADLINE || matches!(self.state.load(Ordering::Acquire), IDLE | GONE) {
            return None;
        }
        if micros_since(self.epoch, now) < due_since.saturating_add(RETIRE_GRACE_MICROS) {
            return None;
        }
        Some(match self.cause.load(Ordering::Acquire) {
            c if c == StopCause::Cancelled as u8 => StopCause::Cancelled,
            _ => StopCause::Deadline,
        })
    }
}
