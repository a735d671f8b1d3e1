//! How many requests may be with the sidecar.
//!
//! It allows `maxInFlight`, but what waits there waits against its time limits; so of slow handlers only so many are sent that
//! each is soon begun. The others wait in the [`Outbox`](crate::outbox::Outbox), where no time runs.
//!
//! Invariants: between [`START`] (or what is allowed, when that is less) and what is allowed; changes with what answers tell of
//! their wait.

use std::time::Duration;

use nexus_protocol::limits::CLIENT_RESERVED_IN_FLIGHT;

/// Sent before anything is known of the handlers; as many keep two cores as busy as a thousand do.
pub(crate) const START: usize = 32;
/// Requests are to wait in the sidecar no longer than this, or than [`WAIT_PART`] of their time limit.
const WAIT: Duration = Duration::from_millis(4);
const WAIT_PART: u32 = 100;

/// See the module.
pub(crate) struct Window {
    size: usize,
    least: usize,
    most: usize,
    wait: Duration,
}

impl Window {
    /// Of what the sidecar says in its hello. `timeout_ms`: 0 is none.
    pub(crate) fn new(max_in_flight: u64, timeout_ms: u64) -> Self {
        let reserved = CLIENT_RESERVED_IN_FLIGHT.min(max_in_flight / 4);
        let most = usize::try_from(max_in_flight - reserved).unwrap_or(usize::MAX).max(1);
        let least = START.min(most);
        let wait = if timeout_ms == 0 { WAIT } else { WAIT.min(Duration::from_millis(timeout_ms) / WAIT_PART) };
        Self { size: least, least, most, wait }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Nothing is unanswered: what comes next may be of another kind.
    pub(crate) fn rest(&mut self) {
        self.size = self.least;
    }

    /// An answer's request had waited in the sidecar's queue; `full`: more would have been sent.
    pub(crate) fn answered(&mut self, queued: Duration, full: bool) {
        if queued > 2 * self.wait {
            self.size = self.size.saturating_sub(2).max(self.least);
        } else if full && queued < self.wait && self.size < self.most {
            self.size += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_grows_while_requests_are_begun_at_once_and_only_when_more_would_be_sent() {
        let mut window = Window::new(1024, 5000);
        (0..5000).for_each(|_| window.answered(MS / 2, false));
        assert_eq!(window.size(), START);
        (0..5000).for_each(|_| window.answered(MS / 2, true));
        assert_eq!(window.size(), 1024 - 32);
        (0..5000).for_each(|_| window.answered(300 * MS, true));
        assert_eq!(window.size(), START);
    }

    #[test]
    fn it_forgets_what_it_knew_of_other_handlers_when_nothing_is_left() {
        let mut window = Window::new(1024, 5000);
        (0..500).for_each(|_| window.answered(Duration::ZERO, true));
        assert!(window.size() > START);
        window.rest();
        assert_eq!(window.size(), START);
    }

    #[test]
    fn it_never_allows_more_than_the_sidecar_and_keeps_a_few_free() {
        for (max_in_flight, most) in [(0, 1), (1, 1), (4, 3), (20, 15), (64, 48), (1024, 992)] {
            let mut window = Window::new(max_in_flight, 0);
            (0..2000).for_each(|turn| window.answered(turn % 2 * MS, true));
            assert_eq!(window.size(), most, "{max_in_flight}");
        }
    }

    #[test]
    fn what_waits_in_the_sidecar_waits_no_longer_than_a_small_part_of_its_time_limit() {
        let mut window = Window::new(1024, 20);
        (0..100).for_each(|_| window.answered(MS, true));
        assert_eq!(window.size(), START);
    }
}
