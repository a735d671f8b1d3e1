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

impl Memory {
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
