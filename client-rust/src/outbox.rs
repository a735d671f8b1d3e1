//! Requests that the sidecar has no room for yet: encoded frames, in the order of their calls.
//!
//! Invariants: no more counted requests are with the sidecar than the [`Window`] says; what goes on with an execution goes
//! first, since that is what sets others free; what needs a place (see [`Places`]) and has none is passed over; what waits is
//! bounded in number and in bytes. Knows neither sockets nor answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nexus_protocol::ClientMessage;
use nexus_protocol::limits::CLIENT_OVERLOADED_RETRY_MS;
use nexus_protocol::message::HelloLimits;

use crate::error::Error;
use crate::places::{PlaceNumber, Places};
use crate::window::Window;

/// What may wait.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// How a request takes its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Not at all: it is one of a few, short, and asked for when the sidecar is busy.
    Urgent,
    /// Goes on with what has begun already.
    Continues,
    Begins,
    /// What it begins may be suspended.
    BeginsAt(PlaceNumber),
}

impl Turn {
    /// Of a request that needs no place.
    pub(crate) fn of(message: &ClientMessage<'_>) -> Self {
        match message {
            ClientMessage::Cancel(_)
            | ClientMessage::Ping
            | ClientMessage::Stats
            | ClientMessage::Metrics
            | ClientMessage::Executions
            | ClientMessage::Kill(_)
            | ClientMessage::OpenArena(_) => Self::Urgent,
            ClientMessage::Resume(_) => Self::Continues,
            _ => Self::Begins,
        }
    }

    fn line(self) -> usize {
        match self {
            Self::Urgent | Self::Continues => 0,
            Self::Begins => 1,
            Self::BeginsAt(_) => 2,
        }
    }
}

/// One request that waits.
pub(crate) struct Waiting {
    pub(crate) id: u32,
    pub(crate) frame: Vec<u8>,
    pub(crate) turn: Turn,
    /// Of a resume: what is left suspended when it is taken back.
    pub(crate) suspension: Option<String>,
}

/// The line of a request that waits, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    line: usize,
    number: u64,
}

/// See the module.
pub(crate) struct Outbox {
    window: Window,
    pub(crate) places: Places,
    /// Counted requests that are with the sidecar.
    sent: usize,
    bounds: Bounds,
    /// By [`Turn::line`].
    lines: [BTreeMap<u64, Waiting>; 3],
    bytes: usize,
    last: u64,
}

impl Outbox {
    pub(crate) fn new(limits: &HelloLimits, bounds: Bounds) -> Self {
        Self {
            window: Window::new(limits.max_in_flight, limits.timeout_ms),
            places: Places::new(limits.max_suspended, limits.suspension_kept_ms()),
            sent: 0,
            bounds,
            lines: Default::default(),
            bytes: 0,
            last: 0,
        }
    }

    /// Counts a request that is to be written now. False: it must wait.
    pub(crate) fn pass(&mut self, turn: Turn, now: Instant) -> bool {
        let [continuing, beginning, placed] = &self.lines;
        let passes = self.has_room()
            && continuing.is_empty()
            && match turn {
                Turn::Urgent | Turn::Continues => true,
                Turn::Begins => beginning.is_empty() && (placed.is_empty() || !self.places.are_free(now)),
                Turn::BeginsAt(place) => beginning.is_empty() && placed.is_empty() && self.places.take(place, now),
            };
        self.sent += usize::from(passes);
        passes
    }

    /// Takes places for what is begun by another's request, as many as there are and no more than asked for: those who wait go first.
    pub(crate) fn take_places(&mut self, most: usize, now: Instant) -> Vec<PlaceNumber> {
        let [_, _, placed] = &self.lines;
        if !placed.is_empty() {
            return Vec::new();
        }
        let places = &mut self.places;
        let taken = std::iter::from_fn(|| Some(places.number()).filter(|number| places.take(*number, now)));
        taken.take(most).collect()
    }

    /// A counted request was answered, or not written after all. `queued`: how long an execution had waited in the sidecar.
    pub(crate) fn done(&mut self, queued: Option<Duration>) {
        self.sent = self.sent.saturating_sub(1);
        let idle = self.is_empty();
        if let Some(queued) = queued {
            self.window.answered(queued, !idle);
        }
        if idle && self.sent == 0 {
            self.window.rest();
        }
    }

    /// Puts a request behind the others of its line. `always`: it is short and must not be refused.
    pub(crate) fn push(&mut self, waiting: Waiting, always: bool) -> Result<Ticket, Error> {
        let count = self.len();
        if count >= self.bounds.requests && !always {
            return Err(overloaded("waitingRequests", self.bounds.requests, count));
        }
        let bytes = self.bytes + waiting.frame.len();
        // One alone may be as large as a frame can be.
        if bytes > self.bounds.bytes && count > 0 && !always {
            return Err(overloaded("waitingBytes", self.bounds.bytes, bytes));
        }
        self.bytes = bytes;
        self.last += 1;
        let ticket = Ticket { line: waiting.turn.line(), number: self.last };
        if let Some(line) = self.lines.get_mut(ticket.line) {
            line.insert(ticket.number, waiting);
        }
        Ok(ticket)
    }

    /// The next one to be written, counted.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Waiting> {
        if !self.has_room() {
            return None;
        }
        let ticket = self.next(now)?;
        let waiting = self.remove(ticket)?;
        if let Turn::BeginsAt(place) = waiting.turn {
            self.places.take(place, now);
        }
        self.sent += 1;
        Some(waiting)
    }

    fn next(&mut self, now: Instant) -> Option<Ticket> {
        let [continuing, beginning, placed] = &self.lines;
        if let Some((&number, _)) = continuing.first_key_value() {
            return Some(Ticket { line: 0, number });
        }
        let begins = beginning.first_key_value().map(|(&number, _)| number);
        if let Some((&number, _)) = placed.first_key_value()
            && begins.is_none_or(|begins| number < begins)
            && self.places.are_free(now)
        {
            return Some(Ticket { line: 2, number });
        }
        Some(Ticket { line: 1, number: begins? })
    }

    /// Takes a request back.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiting> {
        let waiting = self.lines.get_mut(ticket.line)?.remove(&ticket.number)?;
        self.bytes -= waiting.frame.len();
        Some(waiting)
    }

    pub(crate) fn clear(&mut self) {
        self.lines = Default::default();
        self.bytes = 0;
    }

    fn len(&self) -> usize {
        self.lines.iter().map(BTreeMap::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.iter().all(BTreeMap::is_empty)
    }

    /// Whether [`take`](Self::take) has something to give.
    pub(crate) fn is_ready(&mut self, now: Instant) -> bool {
        self.has_room() && self.next(now).is_some()
    }

    fn has_room(&self) -> bool {
        self.sent < self.window.size()
    }
}

/// What a call hears that would be one too many.
pub(crate) fn overloaded(resource: &'static str, limit: usize, count: usize) -> Error {
    Error::Overloaded { resource, limit, count, retry_after: Duration::from_millis(CLIENT_OVERLOADED_RETRY_MS) }
}

#[cfg(test)]
mod tests {
    use crate::ErrorCode;

    use super::*;

    const ROOMY: Bounds = Bounds { requests: 100, bytes: 1000 };

    fn outbox(max_in_flight: u64, bounds: Bounds) -> Outbox {
        let limits = HelloLimits { max_in_flight, max_suspended: Some(1), ..HelloLimits::default() };
        Outbox::new(&limits, bounds)
    }

    fn waiting(id: u32, bytes: usize) -> Waiting {
        Waiting { id, frame: vec![0; bytes], turn: Turn::Begins, suspension: None }
    }

    #[test]
    fn requests_leave_in_order_as_others_are_answered_and_none_overtakes() {
        let now = Instant::now();
        let mut outbox = outbox(1, ROOMY);
        assert!(outbox.pass(Turn::Begins, now));
        let tickets: Vec<_> = (1..=3).map(|id| outbox.push(waiting(id, 10), false).unwrap()).collect();
        assert!(outbox.take(now).is_none(), "there is no room");
        outbox.done(None);
        assert!(!outbox.pass(Turn::Begins, now), "others were there before");
        assert_eq!(outbox.remove(tickets[1]).unwrap().id, 2);
        assert!(outbox.remove(tickets[1]).is_none());
        assert_eq!(outbox.take(now).unwrap().id, 1);
        assert!(outbox.take(now).is_none());
        outbox.done(None);
        assert_eq!(outbox.take(now).unwrap().id, 3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_goes_on_goes_first_and_who_needs_a_place_is_passed_over_while_there_is_none() {
        let now = Instant::now();
        let mut outbox = outbox(64, ROOMY);
        let [held, wanted] = [outbox.places.number(), outbox.places.number()];
        assert!(outbox.pass(Turn::BeginsAt(held), now));
        assert!(!outbox.pass(Turn::BeginsAt(wanted), now));
        let turns = [Turn::BeginsAt(wanted), Turn::Begins, Turn::Continues, Turn::Begins];
        for (id, turn) in (1..).zip(turns) {
            outbox.push(Waiting { turn, ..waiting(id, 10) }, false).unwrap();
        }
        let mut next = || outbox.take(now).map(|waiting| waiting.id);
        assert_eq!([next(), next()], [Some(3), Some(2)]);
        outbox.places.leave(held);
        let mut next = || outbox.take(now).map(|waiting| waiting.id);
        assert_eq!([next(), next(), next()], [Some(1), Some(4), None]);
        assert!(!outbox.places.take(held, now), "it was taken with the request");
    }

    #[test]
    fn what_needs_no_place_passes_those_that_wait_for_one() {
        let now = Instant::now();
        let mut outbox = outbox(64, ROOMY);
        let [held, wanted] = [outbox.places.number(), outbox.places.number()];
        assert!(outbox.pass(Turn::BeginsAt(held), now));
        outbox.push(Waiting { turn: Turn::BeginsAt(wanted), ..waiting(1, 10) }, false).unwrap();
        assert!(!outbox.is_ready(now));
        assert!(outbox.pass(Turn::Begins, now) && outbox.pass(Turn::Continues, now));
        outbox.places.leave(held);
        assert!(outbox.is_ready(now));
        assert!(!outbox.pass(Turn::Begins, now), "the other one came before");
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let refused = |outbox: &mut Outbox, bytes| {
            let error = outbox.push(waiting(9, bytes), false).unwrap_err();
            assert_eq!((error.code(), error.retryable()), (ErrorCode::Overloaded, true));
            let Error::Overloaded { resource, limit, count, .. } = error else { panic!("{error:?}") };
            (resource, limit, count)
        };
        let mut outbox = outbox(1, Bounds { requests: 2, bytes: 100 });
        outbox.push(waiting(1, 500), false).expect("one alone may be large");
        assert_eq!(refused(&mut outbox, 1), ("waitingBytes", 100, 501));
        assert_eq!(outbox.take(Instant::now()).unwrap().id, 1);
        outbox.push(waiting(2, 50), false).unwrap();
        outbox.push(waiting(3, 50), false).unwrap();
        assert_eq!(refused(&mut outbox, 0), ("waitingRequests", 2, 2));
        outbox.push(waiting(4, 1), true).expect("the end of a state is not refused");
    }
}
