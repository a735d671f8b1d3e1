//! The requests of a connection that have no answer yet. Sans-I/O.
//!
//! Invariants: each has an id of its own, which is another's only when it has been answered; what is counted by the outbox as being with the
//! sidecar is given back with its answer; nothing is registered once the connection has ended.

use std::collections::HashMap;
use std::sync::{Arc, Condvar};
use std::task::Waker;
use std::time::{Duration, Instant};

use nexus_protocol::RequestId;
use nexus_protocol::message::HelloLimits;

use super::{Answer, AnswerSlot, PlaceHeld};
use crate::arena::Lease;
use crate::error::Error;
use crate::listed::Listing;
use crate::live_logs::Ear;
use crate::outbox::{Bounds, Outbox, Ticket, Turn, overloaded};
use crate::segment::Segment;
use crate::slot::Slot;

pub(super) struct Requests {
    pub(super) last_id: u32,
    /// Requests without an answer.
    pub(super) waiting: HashMap<u32, Entry>,
    pub(super) outbox: Outbox,
    /// Whether there is a thread that empties the outbox.
    pub(super) pumping: bool,
    /// So many requests may be unanswered when one comes that takes no turn while the sidecar does not read.
    pub(super) bound: usize,
    /// Filled at the end of the connection; by a number of their own.
    pub(super) watchers: HashMap<u64, Arc<Slot<Error>>>,
    pub(super) last_watcher: u64,
    /// Why there is no connection any more, and since when.
    pub(super) closed: Option<(Error, Instant)>,
}

pub(super) struct Entry {
    pub(super) slot: Arc<AnswerSlot>,
    pub(super) place: Place,
    /// What is its own of the shared memory until it is answered.
    pub(super) lease: Option<Box<Lease>>,
    /// Held until it is answered, whatever becomes of who asked.
    pub(super) at: Option<Arc<PlaceHeld>>,
    /// Of an execution whose calls are listed.
    pub(super) listing: Option<Listing>,
    /// Of many executions.
    pub(super) parts: Option<Box<Parts>>,
    /// Of a run that hears what is logged.
    pub(super) ear: Option<Ear>,
}

impl Entry {
    /// What is told instead of an error by who has parts already.
    pub(super) fn with_parts(&mut self, result: Result<Answer, Error>) -> Result<Answer, Error> {
        let Some(parts) = &mut self.parts else { return result };
        let mut told = std::mem::take(&mut parts.told);
        match result {
            Ok(Answer::Results(last, error)) => {
                told.extend(last);
                Ok(Answer::Results(told, error))
            }
            Err(error) => Ok(Answer::Results(told, Some(error))),
            other => other,
        }
    }
}

/// Results that have come before the last of them, until somebody takes them.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) told: Vec<Segment>,
    pub(super) waker: Option<Waker>,
    /// Where its executions may be suspended: held until it is answered.
    pub(super) places: Vec<Arc<PlaceHeld>>,
}

pub(super) enum Place {
    /// With the sidecar, not counted.
    Urgent,
    /// With the sidecar, or about to be.
    Sent,
    /// Not counted yet: about to be in the outbox.
    Coming,
    /// In the outbox, under this ticket.
    Waiting(Ticket),
}

impl Requests {
    pub(super) fn new(limits: &HelloLimits, waiting: Bounds) -> Self {
        let max_in_flight = usize::try_from(limits.max_in_flight).unwrap_or(usize::MAX);
        Self {
            last_id: 0,
            waiting: HashMap::new(),
            outbox: Outbox::new(limits, waiting),
            pumping: false,
            bound: waiting.requests.saturating_add(max_in_flight),
            watchers: HashMap::new(),
            last_watcher: 0,
            closed: None,
        }
    }

    /// Its id, and whether it must wait. `busy`: the sidecar has not read yet what was written.
    pub(super) fn register(
        &mut self,
        mut entry: Entry,
        turn: Turn,
        busy: bool,
        is_bounded: bool,
    ) -> Result<(u32, bool), (Error, Entry)> {
        if let Some((error, _)) = &self.closed {
            return Err((error.clone(), entry));
        }
        if is_bounded && self.waiting.len() >= self.bound {
            return Err((overloaded("waitingRequests", self.bound, self.waiting.len()), entry));
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != RequestId::CONNECTION.0 && !self.waiting.contains_key(&self.last_id) {
                entry.place = match turn {
                    Turn::Urgent => Place::Urgent,
                    turn if !busy && self.outbox.pass(turn, Instant::now()) => Place::Sent,
                    _ => Place::Coming,
                };
                let waits = matches!(entry.place, Place::Coming);
                self.waiting.insert(self.last_id, entry);
                return Ok((self.last_id, waits));
            }
        }
    }

    /// Of a request that was answered, or that was not sent.
    /// `queued`: how long an execution had waited in the sidecar.
    pub(super) fn remove(&mut self, id: u32, queued: Option<Duration>, room: &Condvar) -> Option<Entry> {
        let entry = self.waiting.remove(&id)?;
        if matches!(entry.place, Place::Sent) {
            self.outbox.done(queued);
            if !self.outbox.is_empty() {
                room.notify_one();
            }
        }
        Some(entry)
    }
}
