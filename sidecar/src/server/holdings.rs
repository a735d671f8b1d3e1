//! What suspended executions hold: which of them keep an instance, who gives it up next, and how many bytes all of them take.
//!
//! An execution is resumed from its instance in 7 us; from its image that is 27 us for parking, 12 for unparking and a lease
//! more. So it stays live while it may be resumed soon, and is parked, the one that waits longest first,
//! - when more than `MAX_LIVE_SUSPENDED` are live and it has waited for `BRIEF`: extensions that answer at once never pay;
//! - when it has waited for `LONG`, however few there are: a sidecar that only waits gets small.
//!
//! Invariant: what a suspended execution takes is charged to its session from the moment that it is suspended until it goes on or
//! ends: its context and calls, and the memory of its guest or the image of that. A live one whose memory finds no room is parked
//! before it is answered, and one whose image finds none ends. Both bounds are shared by rule: see [`crate::share`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::limits::MAX_LIVE_SUSPENDED;

use crate::budget::{Budget, Full};
use crate::share::{Share, Whose};

/// A call that is answered within this time is an answer at once.
const BRIEF: Duration = Duration::from_millis(5);
/// Who has waited this long will wait longer.
const LONG: Duration = Duration::from_secs(1);
/// So many live ones over the bound that parking them is the next thing to do, before more of them suspend.
const PRESSING: usize = 2 * MAX_LIVE_SUSPENDED;
/// Each instance reserves 12 GiB of address space. Only reached where parking is impossible.
const MAX_INSTANCES_HELD: u64 = 6_000;

/// Place of a live execution in the order of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(u64);

#[derive(Debug)]
struct Waiting {
    key: u64,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Holdings {
    max_live: usize,
    budget: Arc<Budget>,
    live: BTreeMap<Seat, Waiting>,
    next_seat: u64,
    parked: usize,
    parking: Parking,
}

/// Whether executions can be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parking {
    Possible,
    /// The last attempt failed for lack of something that others may give back.
    PausedUntil(Instant),
    /// The system does not tell which pages are in use.
    Impossible,
}

impl Holdings {
    pub fn new(max_running: usize, max_bytes: u64) -> Self {
        Self {
            max_live: MAX_LIVE_SUSPENDED.max(max_running),
            budget: Budget::new("maxSuspendedBytes", max_bytes),
            live: BTreeMap::new(),
            next_seat: 0,
            parked: 0,
            parking: Parking::Possible,
        }
    }

    /// What the executions of one session are charged to.
    pub fn of_session(&self) -> Arc<Budget> {
        self.budget.part("maxSuspendedBytes", u64::MAX)
    }

    pub fn max_bytes(&self) -> u64 {
        self.budget.limit()
    }

    /// What is over a lower bound stays until it goes by itself.
    pub fn set_max_bytes(&mut self, max_bytes: u64) {
        self.budget.set_limit(max_bytes);
    }

    pub fn bytes(&self) -> u64 {
        self.budget.used()
    }

    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whether one more may keep its instance, of a session that has so many executions with it.
    pub fn has_instance(&self, executions: u64) -> bool {
        Share::of(MAX_INSTANCES_HELD).allows(executions, self.live.len() as u64 + 1)
    }

    /// Whether so much may be charged that is only an estimate. With estimates no more than half of all is taken, so that none of them
    /// is why somebody finds no room.
    pub fn takes_estimate(&self, bytes: u64) -> Result<(), Full> {
        let (limit, count) = (self.max_bytes(), self.bytes().saturating_add(bytes));
        if count <= limit / 2 {
            return Ok(());
        }
        Err(Full { resource: "maxSuspendedBytes", limit, count, whose: Whose::All })
    }

    /// Takes a live execution in.
    pub fn add_live(&mut self, key: u64, now: Instant) -> Seat {
        self.next_seat += 1;
        let seat = Seat(self.next_seat);
        self.live.insert(seat, Waiting { key, since: now });
        seat
    }

    /// An execution with an instance goes on, or ends, or is about to be parked.
    pub fn remove_live(&mut self, seat: Seat) {
        self.live.remove(&seat);
    }

    /// Takes a parked execution in.
    pub fn add_parked(&mut self) {
        self.parked += 1;
        self.parking = Parking::Possible;
    }

    pub fn remove_parked(&mut self) {
        self.parked -= 1;
    }

    /// Nothing is parked before that time; None: nothing ever is.
    pub fn pause_parking(&mut self, until: Option<Instant>) {
        self.parking = until.map_or(Parking::Impossible, Parking::PausedUntil);
    }

    fn may_park(&self, now: Instant) -> bool {
        match self.parking {
            Parking::Possible => true,
            Parking::PausedUntil(until) => now >= until,
            Parking::Impossible => false,
        }
    }

    /// The execution that is to be parked now.
    pub fn due(&self, now: Instant) -> Option<u64> {
        if !self.may_park(now) {
            return None;
        }
        let (_, oldest) = self.live.first_key_value()?;
        let waited = now.saturating_duration_since(oldest.since);
        let due = waited >= LONG || (self.live.len() > self.max_live && waited >= BRIEF) || self.live.len() > PRESSING;
        due.then_some(oldest.key)
    }

    /// Whether so many are live that whoever can should park one.
    pub fn is_pressing(&self) -> bool {
        self.live.len() > PRESSING && self.parking == Parking::Possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn few_that_wait_briefly_stay_and_one_that_waits_long_goes() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        for key in 0..MAX_LIVE_SUSPENDED as u64 {
            holdings.add_live(key, start + MS * key as u32);
        }
        assert_eq!(holdings.due(start + LONG - MS), None);
        assert_eq!(holdings.due(start + LONG), Some(0));
    }

    #[test]
    fn of_too_many_the_one_that_waits_longest_goes_but_not_at_once() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        let turns: Vec<_> = (0..=MAX_LIVE_SUSPENDED as u64).map(|key| holdings.add_live(key, start)).collect();
        assert_eq!(holdings.due(start + BRIEF - MS), None);
        assert_eq!(holdings.due(start + BRIEF), Some(0));
        holdings.remove_live(turns[0]);
        assert_eq!(holdings.due(start + BRIEF), None);
    }

    #[test]
    fn many_more_than_too_many_do_not_wait() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        for key in 0..PRESSING as u64 {
            holdings.add_live(key, start);
        }
        assert_eq!((holdings.due(start), holdings.is_pressing()), (None, false));
        holdings.add_live(PRESSING as u64, start);
        assert_eq!((holdings.due(start), holdings.is_pressing()), (Some(0), true));
    }

    #[test]
    fn the_instances_that_wait_are_bounded_and_whoever_has_none_finds_one() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        let mut count = 0;
        while holdings.has_instance(count + 1) {
            count += 1;
            holdings.add_live(count, start);
        }
        assert_eq!(count, MAX_INSTANCES_HELD);
        assert!(holdings.has_instance(1) && !holdings.has_instance(MAX_INSTANCES_HELD));
    }

    #[test]
    fn with_estimates_no_more_than_half_is_taken() {
        let holdings = Holdings::new(4, 100);
        let held = holdings.of_session().charge(40).unwrap();
        assert!(holdings.takes_estimate(10).is_ok());
        let full = Full { resource: "maxSuspendedBytes", limit: 100, count: 51, whose: Whose::All };
        assert_eq!(holdings.takes_estimate(11).unwrap_err(), full);
        drop(held);
        assert!(holdings.takes_estimate(50).is_ok());
    }

    #[test]
    fn what_sessions_are_charged_is_counted_together() {
        let mut holdings = Holdings::new(4, 100);
        let (one, other) = (holdings.of_session(), holdings.of_session());
        let held = one.charge(100).unwrap();
        assert_eq!((holdings.bytes(), one.charge(1).is_err(), other.charge(1).is_ok()), (100, true, true));
        holdings.set_max_bytes(200);
        let more = other.charge(90).unwrap();
        assert_eq!((holdings.max_bytes(), holdings.bytes()), (200, 190));
        drop((held, more));
        assert_eq!(holdings.bytes(), 0);
    }

    #[test]
    fn parking_that_failed_for_the_moment_is_tried_again_and_one_that_cannot_be_is_not() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        holdings.add_live(1, start);
        holdings.pause_parking(Some(start + LONG * 3));
        assert_eq!(holdings.due(start + LONG * 2), None);
        assert_eq!(holdings.due(start + LONG * 3), Some(1));
        for key in 2..=PRESSING as u64 + 2 {
            holdings.add_live(key, start);
        }
        assert!(!holdings.is_pressing());
        holdings.add_parked();
        assert!(holdings.is_pressing(), "it works again");
        holdings.pause_parking(None);
        assert_eq!((holdings.due(start + LONG * 9), holdings.is_pressing()), (None, false));
    }
}
