//! What all connections together may have the process hold, beside what settings bound: bytes that they have sent, and
//! answers that they have not read.

use std::sync::Arc;

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

/// From this many bytes on what peers have had at once is a burst, after which memory is given back.
const BURST_BYTES: u64 = 32 << 20;

/// The most that was held since memory was last given back.
#[derive(Debug, Default)]
pub struct Burst(u64);

impl Burst {
    /// `held`: what is held now. True: there was a burst, and it is over.
    pub fn is_over(&mut self, held: u64) -> bool {
        self.0 = self.0.max(held);
        let over = self.0 >= BURST_BYTES && held <= self.0 / 4;
        if over {
            self.0 = held;
        }
        over
    }
}

impl Memory {
    /// What peers have the process hold at this moment.
    pub fn held(&self) -> u64 {
        self.received.used().saturating_add(self.unread.used())
    }

    /// `max_frame_bytes`: a connection that is alone may always send the largest frame, and another one beside it.
    pub fn new(max_frame_bytes: usize) -> Self {
        let of_one = MAX_QUEUED_BYTES.max((max_frame_bytes as u64).saturating_mul(2));
        let total = MAX_TOTAL_QUEUED_BYTES.max(of_one.saturating_mul(2));
        Self {
            received: Budget::new("maxTotalQueuedBytes", total),
            unread: Budget::new("maxTotalUnreadBytes", MAX_TOTAL_UNREAD_BYTES),
            of_one,
        }
    }

    /// What one connection has sent and is not done with.
    pub fn of_connection(&self) -> Arc<Budget> {
        self.received.part("maxQueuedBytes", self.of_one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_once() {
        let mut burst = Burst::default();
        let looks = [0, BURST_BYTES - 1, 0, BURST_BYTES * 4, BURST_BYTES * 2, BURST_BYTES, 0, 0];
        assert_eq!(looks.map(|held| burst.is_over(held)), [false, false, false, false, false, true, true, false]);
    }
}
