//! What suspended executions hold: which of them keep an instance, who gives it up next, and how many bytes all of them take.
//!
//! An execution is resumed from its instance in 7 us; from its image that is 27 us for parking, 12 for unparking and a lease
//! more. So it stays live while it may be resumed soon, and is parked, the one that waits longest first,
//! - when more than `MAX_LIVE_SUSPENDED` are live and it has waited for `BRIEF`: extensions that answer at once never pay;
//! - when it has waited for `LONG`, however few there are: a sidecar that only waits gets small.
//!
//! What is counted here is only memory outside of instances; live instances are bounded by their number. Nothing is parked, and
//! no more than `MAX_LIVE_SUSPENDED` are taken in, while the last one that was parked did not fit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nexus_protocol::limits::MAX_LIVE_SUSPENDED;

/// A call that is answered within this time is an answer at once.
const BRIEF: Duration = Duration::from_millis(5);
/// Who has waited this long will wait longer.
const LONG: Duration = Duration::from_secs(1);
/// So many live ones over the bound that parking them is the next thing to do, before more of them suspend.
const PRESSING: usize = 2 * MAX_LIVE_SUSPENDED;
/// Each instance reserves 12 GiB of address space. Only reached where parking is impossible.
const MAX_INSTANCES_HELD: usize = 6_000;

/// Place of a live execution in the order of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn(u64);

#[derive(Debug)]
struct Waiting {
    key: u64,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Holdings {
    max_live: usize,
    max_bytes: u64,
    live: BTreeMap<Turn, Waiting>,
    next_turn: u64,
    bytes: u64,
    parked: usize,
    /// An image did not fit; until something goes.
    full: bool,
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
            max_bytes,
            live: BTreeMap::new(),
            next_turn: 0,
            bytes: 0,
            parked: 0,
            full: false,
            parking: Parking::Possible,
        }
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// What is over a lower bound stays until it goes by itself.
    pub fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
        self.full = false;
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whether one more live execution that takes `bytes` beside its instance can be held.
    pub fn has_room(&self, bytes: u64) -> bool {
        let held = self.live.len();
        let crowded = held >= self.max_live && self.full || held >= MAX_INSTANCES_HELD;
        !crowded && self.bytes.saturating_add(bytes) <= self.max_bytes
    }

    /// Takes a live execution in.
    pub fn add_live(&mut self, key: u64, bytes: u64, now: Instant) -> Turn {
        let turn = Turn(self.next_turn);
        self.next_turn += 1;
        self.live.insert(turn, Waiting { key, since: now });
        self.bytes += bytes;
        turn
    }

    /// A live execution goes on, or ends, or is about to be parked. Its bytes stay counted in the last case.
    pub fn remove_live(&mut self, turn: Turn) {
        self.live.remove(&turn);
    }

    /// Takes a parked execution in. False: it does not fit.
    pub fn add_parked(&mut self, bytes: u64) -> bool {
        if self.bytes.saturating_add(bytes) > self.max_bytes {
            self.full = true;
            return false;
        }
        self.bytes += bytes;
        self.parked += 1;
        self.parking = Parking::Possible;
        true
    }

    pub fn remove_parked(&mut self) {
        self.parked -= 1;
    }

    pub fn remove_bytes(&mut self, bytes: u64) {
        self.bytes -= bytes;
        self.full = self.full && bytes == 0;
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
        if self.full || !self.may_park(now) {
            return None;
        }
        let (_, oldest) = self.live.first_key_value()?;
        let waited = now.saturating_duration_since(oldest.since);
        let due = waited >= LONG || (self.live.len() > self.max_live && waited >= BRIEF) || self.live.len() > PRESSING;
        due.then_some(oldest.key)
    }

    /// Whether so many are live that whoever can should park one.
    pub fn is_pressing(&self) -> bool {
        self.live.len() > PRESSING && !self.full && self.parking == Parking::Possible
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
            holdings.add_live(key, 1, start + MS * key as u32);
        }
        assert_eq!(holdings.due(start + LONG - MS), None);
        assert_eq!(holdings.due(start + LONG), Some(0));
    }

    #[test]
    fn of_too_many_the_one_that_waits_longest_goes_but_not_at_once() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        let turns: Vec<_> = (0..=MAX_LIVE_SUSPENDED as u64).map(|key| holdings.add_live(key, 1, start)).collect();
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
            holdings.add_live(key, 1, start);
        }
        assert_eq!((holdings.due(start), holdings.is_pressing()), (None, false));
        holdings.add_live(PRESSING as u64, 1, start);
        assert_eq!((holdings.due(start), holdings.is_pressing()), (Some(0), true));
    }

    #[test]
    fn bytes_are_bounded_and_nothing_is_parked_while_the_last_one_did_not_fit() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 100);
        let turn = holdings.add_live(7, 40, start);
        assert!(holdings.has_room(60) && !holdings.has_room(61));
        holdings.remove_live(turn);
        assert!(!holdings.add_parked(61));
        holdings.add_live(8, 0, start);
        assert_eq!(holdings.due(start + LONG), None);
        holdings.remove_bytes(10);
        assert_eq!(holdings.due(start + LONG), Some(8));
        assert!(holdings.add_parked(61));
        assert_eq!((holdings.bytes(), holdings.parked()), (91, 1));
    }

    #[test]
    fn parking_that_failed_for_the_moment_is_tried_again_and_one_that_cannot_be_is_not() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 1000);
        holdings.add_live(1, 1, start);
        holdings.pause_parking(Some(start + LONG * 3));
        assert_eq!(holdings.due(start + LONG * 2), None);
        assert_eq!(holdings.due(start + LONG * 3), Some(1));
        for key in 2..=PRESSING as u64 + 2 {
            holdings.add_live(key, 1, start);
        }
        assert!(!holdings.is_pressing());
        assert!(holdings.add_parked(1) && holdings.is_pressing(), "it works again");
        holdings.pause_parking(None);
        assert_eq!((holdings.due(start + LONG * 9), holdings.is_pressing()), (None, false));
    }

    #[test]
    fn without_room_for_images_only_so_many_are_taken_in_as_may_be_live() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 100);
        assert!(!holdings.add_parked(101));
        for key in 0..MAX_LIVE_SUSPENDED as u64 {
            assert!(holdings.has_room(1));
            holdings.add_live(key, 1, start);
        }
        assert!(!holdings.has_room(1));
    }
}
