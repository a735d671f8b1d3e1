//! Requests that the sidecar has no room for yet: encoded frames, in the order of their calls.
//!
//! Invariants: no more counted requests are with the sidecar than it allows, less a few that are kept free for cancels and
//! figures; what waits is bounded in number and in bytes. Knows neither sockets nor answers.

use std::collections::BTreeMap;
use std::time::Duration;

use nexus_protocol::ClientMessage;
use nexus_protocol::limits::{CLIENT_OVERLOADED_RETRY_MS, CLIENT_RESERVED_IN_FLIGHT};

use crate::error::Error;

/// What may wait.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// One request that waits.
pub(crate) struct Waiting {
    pub(crate) id: u32,
    pub(crate) frame: Vec<u8>,
    /// Of a resume: what is left suspended when it is taken back.
    pub(crate) suspension: Option<String>,
}

/// See the module.
pub(crate) struct Outbox {
    allowed: usize,
    /// Counted requests that are with the sidecar.
    sent: usize,
    bounds: Bounds,
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
    last: u64,
}

impl Outbox {
    pub(crate) fn new(max_in_flight: u64, bounds: Bounds) -> Self {
        let reserved = CLIENT_RESERVED_IN_FLIGHT.min(max_in_flight / 4);
        let allowed = usize::try_from(max_in_flight - reserved).unwrap_or(usize::MAX).max(1);
        Self { allowed, sent: 0, bounds, waiting: BTreeMap::new(), bytes: 0, last: 0 }
    }

    /// Whether a request takes its turn. The others are few, short, and asked for when the sidecar is busy.
    pub(crate) fn counts(message: &ClientMessage<'_>) -> bool {
        !matches!(
            message,
            ClientMessage::Cancel(_)
                | ClientMessage::Ping
                | ClientMessage::Stats
                | ClientMessage::Metrics
                | ClientMessage::Executions
                | ClientMessage::Kill(_)
                | ClientMessage::OpenArena(_)
        )
    }

    /// Counts a request that is to be written now. False: it must wait.
    pub(crate) fn pass(&mut self) -> bool {
        let passes = self.waiting.is_empty() && self.has_room();
        self.sent += usize::from(passes);
        passes
    }

    /// A counted request was answered, or not written after all.
    pub(crate) fn done(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// Puts a request behind the others; says under which number. `always`: it is short and must not be refused.
    pub(crate) fn push(&mut self, waiting: Waiting, always: bool) -> Result<u64, Error> {
        if self.waiting.len() >= self.bounds.requests && !always {
            return Err(overloaded("waitingRequests", self.bounds.requests, self.waiting.len()));
        }
        let bytes = self.bytes + waiting.frame.len();
        // One alone may be as large as a frame can be.
        if bytes > self.bounds.bytes && !self.waiting.is_empty() && !always {
            return Err(overloaded("waitingBytes", self.bounds.bytes, bytes));
        }
        self.bytes = bytes;
        self.last += 1;
        self.waiting.insert(self.last, waiting);
        Ok(self.last)
    }

    /// The next one to be written, counted.
    pub(crate) fn take(&mut self) -> Option<Waiting> {
        if !self.has_room() {
            return None;
        }
        let (_, waiting) = self.waiting.pop_first()?;
        self.bytes -= waiting.frame.len();
        self.sent += 1;
        Some(waiting)
    }

    /// Takes a request back.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        self.bytes -= waiting.frame.len();
        Some(waiting)
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.sent < self.allowed
    }
}

/// What a call hears that would be one too many.
pub(crate) fn overloaded(resource: &'static str, limit: usize, count: usize) -> Error {
    Error::Overloaded { resource, limit, count, retry_after: Duration::from_millis(CLIENT_OVERLOADED_RETRY_MS) }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ErrorCode;

    use super::*;

    const ROOMY: Bounds = Bounds { requests: 100, bytes: 1000 };

    fn waiting(id: u32, bytes: usize) -> Waiting {
        Waiting { id, frame: vec![0; bytes], suspension: None }
    }

    #[test]
    fn a_few_of_what_the_sidecar_allows_are_kept_free() {
        for (max_in_flight, allowed) in [(0, 1), (1, 1), (4, 3), (64, 48), (1024, 992)] {
            let mut outbox = Outbox::new(max_in_flight, ROOMY);
            assert_eq!((0..2000).filter(|_| outbox.pass()).count(), allowed, "{max_in_flight}");
        }
    }

    #[test]
    fn requests_leave_in_order_as_others_are_answered_and_none_overtakes() {
        let mut outbox = Outbox::new(1, ROOMY);
        assert!(outbox.pass());
        let numbers: Vec<_> = (1..=3).map(|id| outbox.push(waiting(id, 10), false).unwrap()).collect();
        assert!(outbox.take().is_none(), "there is no room");
        outbox.done();
        assert!(!outbox.pass(), "others were there before");
        assert_eq!(outbox.remove(numbers[1]).unwrap().id, 2);
        assert!(outbox.remove(numbers[1]).is_none());
        assert_eq!(outbox.take().unwrap().id, 1);
        assert!(outbox.take().is_none());
        outbox.done();
        assert_eq!(outbox.take().unwrap().id, 3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let refused = |outbox: &mut Outbox, bytes| {
            let error = outbox.push(waiting(9, bytes), false).unwrap_err();
            assert_eq!((error.code(), error.retryable()), (ErrorCode::Overloaded, true));
            let Error::Overloaded { resource, limit, count, .. } = error else { panic!("{error:?}") };
            (resource, limit, count)
        };
        let mut outbox = Outbox::new(1, Bounds { requests: 2, bytes: 100 });
        outbox.push(waiting(1, 500), false).expect("one alone may be large");
        assert_eq!(refused(&mut outbox, 1), ("waitingBytes", 100, 501));
        assert_eq!(outbox.take().unwrap().id, 1);
        outbox.push(waiting(2, 50), false).unwrap();
        outbox.push(waiting(3, 50), false).unwrap();
        assert_eq!(refused(&mut outbox, 0), ("waitingRequests", 2, 2));
        outbox.push(waiting(4, 1), true).expect("the end of a state is not refused");
    }
}
