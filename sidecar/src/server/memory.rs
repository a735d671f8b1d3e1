//! What all connections together may have the process hold, beside what settings bound: bytes that they have sent, and
//! answers that they have not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{MAX_QUEUED_BYTES, MAX_TOTAL_QUEUED_BYTES, MAX_TOTAL_UNREAD_BYTES};

use crate::budget::Budget;

/// See the module.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Of all connections: what has been sent and is not done with.
    pub received: Arc<Budget>,
    /// Answers that are not read.
    pub unread: Arc<Budget>,
    of_one: u64,
}

/// From this many bytes on, held at once or one after the other, memory is given back once it is free.
const BURST_BYTES: u64 = 32 << 20;
/// Time between two times: what is needed again at once is not worth it.
const PAUSE: Duration = Duration::from_secs(1);

/// What was held since memory was last given back.
#[derive(Debug, Default)]
pub struct Burst {
    most: u64,
    turned_over: u64,
    last: Option<Instant>,
    /// The last burst may have had a rest, which is too small to be one itself.
    has_rest: bool,
}

impl Burst {
    /// `held`: what is held now; `turned_over`: what has been held and is not any more, since the start. True: there was a burst,
    /// and it is over.
    pub fn is_over(&mut self, held: u64, turned_over: u64, now: Instant) -> bool {
        self.most = self.most.max(held);
        let was = self.most.max(turned_over.saturating_sub(self.turned_over));
        let paused = self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        let over = was >= BURST_BYTES && held <= was / 4 && !paused;
        let rest_is_over = self.has_rest && held == 0 && !paused;
        if over || rest_is_over {
            let trims = over || was > 0;
            *self = Self { most: held, turned_over, last: Some(now), has_rest: over };
            return trims;
        }
        false
    }
}

impl Memory {
    /// What peers have the process hold at this moment.
    pub fn held(&self) -> u64 {
        self.received.used().saturating_add(self.unread.used())
    }

    /// What they have had it hold since the start, in large pieces.
    pub fn turned_over(&self) -> u64 {
        self.received.turned_over().saturating_add(self.unread.turned_over())
    }

    /// `max_frame_bytes`: a connection that is alone may always send the largest frame, and another one beside it.
    pub fn new(max_frame_bytes: usize) -> Self {
        let of_one = MAX_QUEUED_BYTES.max((max_frame_bytes as u64).saturating_mul(2));
        let total = MAX_TOTAL_QUEUED_BYTES.max(of_one.saturating_mul(2));
        // the largest answer has room in it, and another one
        let unread = MAX_TOTAL_UNREAD_BYTES.max((max_frame_bytes as u64).saturating_mul(2));
        Self {
            received: Budget::new("maxTotalQueuedBytes", total),
            unread: Budget::new("maxTotalUnreadBytes", unread),
            of_one,
        }
    }

    /// What one connection has sent and is not done with.
    pub fn of_connection(&self) -> Arc<Budget> {
        self.received.part("maxQueuedBytes", self.of_one)
    }

    /// What one connection has not read. It is not begun with anything when that is too much; an answer that is there is kept.
    pub fn unread_of_connection(&self) -> Arc<Budget> {
        self.unread.part("maxUnreadBytes", u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once_whether_it_came_at_once_or_bit_by_bit() {
        let start = Instant::now();
        let mut burst = Burst::default();
        let mut look = |held, turned_over, ms| burst.is_over(held, turned_over, start + Duration::from_millis(ms));
        assert!(!look(BURST_BYTES, 0, 0), "it goes on");
        assert!(!look(BURST_BYTES / 2, 0, 1));
        assert!(look(BURST_BYTES / 4, 0, 2) && !look(1, 0, 2_000));
        assert!(look(0, 0, 2_001), "the rest of it");
        assert!(!look(0, 0, 4_000));
        // small ones, which no look has seen
        assert!(!look(0, BURST_BYTES - 1, 6_000));
        assert!(look(0, BURST_BYTES, 8_000) && !look(0, BURST_BYTES, 8_500) && !look(0, BURST_BYTES, 10_000));
        assert!(look(0, BURST_BYTES * 3, 12_000) && !look(0, BURST_BYTES * 6, 12_001), "a moment ago");
        assert!(look(0, BURST_BYTES * 6, 14_000));
    }
}
