//! Since when a thread that nobody can replace has been at something: the thread that has the poller, and the housekeeper.
//! The watchdog looks at it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nothing is under way.
const AT_REST: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Busy {
    epoch: Instant,
    /// Microseconds since `epoch`, or `AT_REST`.
    since: AtomicU64,
}

impl Busy {
    pub fn new() -> Self {
        Self { epoch: Instant::now(), since: AtomicU64::new(AT_REST) }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).map_or(AT_REST - 1, |t| t.min(AT_REST - 1))
    }

    /// Something begins, or the next thing does.
    pub fn begin(&self, now: Instant) {
        self.since.store(self.micros(now), Ordering::Relaxed);
    }

    /// All of it is done.
    pub fn end(&self) {
        self.since.store(AT_REST, Ordering::Relaxed);
    }

    pub fn is_busy(&self) -> bool {
        self.since.load(Ordering::Relaxed) != AT_REST
    }

    /// Whether it has been at the same thing for that long.
    pub fn for_longer_than(&self, time: Duration, now: Instant) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != AT_REST && u128::from(self.micros(now).saturating_sub(since)) >= time.as_micros()
    }

    /// The time up to `now` does not count: the process was stopped.
    pub fn forgive(&self, now: Instant) {
        let since = self.since.load(Ordering::Relaxed);
        if since != AT_REST {
            // whoever begins something else meanwhile has forgiven itself
            let _ = self.since.compare_exchange(since, self.micros(now), Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_on_takes_long() {
        let busy = Busy::new();
        let (now, grace) = (Instant::now(), Duration::from_secs(10));
        assert!(!busy.for_longer_than(Duration::ZERO, now));
        busy.begin(now);
        assert!(busy.is_busy() && !busy.for_longer_than(grace, now + grace / 2));
        assert!(busy.for_longer_than(grace, now + grace * 2));
        busy.forgive(now + grace * 2);
        assert!(!busy.for_longer_than(grace, now + grace * 2));
        busy.end();
        busy.forgive(now);
        assert!(!busy.is_busy());
    }
}
