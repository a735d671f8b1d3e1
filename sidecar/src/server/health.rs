//! Whether the server still works: its poller is polled, its watchdog looks, and no run outlives its end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nexus_protocol::limits;

use super::Server;
use super::state::State;

/// Looks for the lock before it counts as held by somebody who does not move.
const LOCK_ATTEMPTS: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Counts that grow while the server works. To be compared after a [`Server::prod`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub polls: u64,
    pub ticks: u64,
}

impl Pulse {
    /// Both have gone on.
    pub fn is_after(self, earlier: Self) -> bool {
        self.polls != earlier.polls && self.ticks != earlier.ticks
    }
}

impl Server {
    /// Gives poller and watchdog a reason to move.
    pub fn prod(&self) {
        self.wake_poller();
        self.runtime.engine().watchdog().notify();
    }

    /// None: the server's lock is not to be had.
    pub fn pulse(&self) -> Option<Pulse> {
        for _ in 0..LOCK_ATTEMPTS {
            if let Some(state) = self.try_lock() {
                let State { poll_epoch, .. } = &*state;
                return Some(Pulse { polls: *poll_epoch, ticks: self.ticks.load(Ordering::Relaxed) });
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        None
    }

    /// Whether something runs that was to be stopped long ago.
    pub fn has_stuck_run(&self) -> bool {
        self.runtime.engine().watchdog().has_overdue(Instant::now(), Duration::from_millis(limits::STUCK_RUN_MS))
    }

    /// Prods and waits for a sign of life.
    pub fn is_alive(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let Some(before) = self.pulse() else { return false };
        self.prod();
        loop {
            if self.pulse().is_some_and(|now| now.is_after(before)) {
                return !self.has_stuck_run();
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }
}
