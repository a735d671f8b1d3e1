//! What stands for executions and guests in the simulation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::engine::control::{Control, Ticket};
use crate::token::StopCause;

/// Of one token.
pub const MAX_TOKEN_BYTES: u64 = 1_500;

impl Peer for () {
    fn is_over(&self) -> bool {
        false
    }
}

/// An execution without a guest.
#[derive(Debug)]
pub struct Token {
    pub number: u64,
    pub outstanding: Vec<Outstanding>,
    pub new: usize,
    pub grown: u64,
    /// It is held for three times as much as it takes.
    pub estimated: bool,
    pub parked: bool,
    pub alive: Rc<Cell<i64>>,
}

impl Token {
    /// It has found no room.
    pub fn is_made_smaller(&mut self) {
        assert!(!self.parked, "there is nothing to make smaller");
        self.parked = !self.estimated;
        self.estimated = false;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

impl Held for Token {
    fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    fn new_calls(&self) -> &[Outstanding] {
        &self.outstanding[self.outstanding.len() - self.new..]
    }

    fn held_bytes(&mut self) -> u64 {
        // another number each time, and less without an instance
        self.grown += 100;
        let own = (1000 + self.grown % 500 + self.outstanding.len() as u64).min(MAX_TOKEN_BYTES);
        if self.parked { own / 4 } else { own * if self.estimated { 3 } else { 1 } }
    }

    fn is_estimated(&self) -> bool {
        self.estimated && !self.parked
    }

    fn is_parked(&self) -> bool {
        self.parked
    }

    fn spent(&self) -> (Duration, u64) {
        (Duration::ZERO, 0)
    }
}

/// An instance without a guest: who runs there was stopped, or not.
#[derive(Debug, Default)]
pub struct FakeControl {
    ticket: AtomicU64,
    pub stopped: AtomicBool,
}

impl Control for FakeControl {
    fn arm(&self) -> Ticket {
        self.stopped.store(false, Ordering::Relaxed);
        Ticket(self.ticket.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn stop(&self, ticket: Ticket, _: StopCause) -> bool {
        let ours = self.ticket.load(Ordering::Relaxed) == ticket.0;
        if ours {
            self.stopped.store(true, Ordering::Relaxed);
        }
        ours
    }

    fn give_up(&self, ticket: Ticket) -> bool {
        self.ticket.load(Ordering::Relaxed) == ticket.0
    }

    fn due_for(&self, _: Ticket, _: Instant) -> Option<(StopCause, Duration)> {
        None
    }

    fn forgive(&self, _: Instant) {}

    fn resident_bytes(&self) -> Option<u64> {
        None
    }
}
