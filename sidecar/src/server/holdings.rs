//! What suspended executions hold: which of them keep an instance, who gives it up next, and how many bytes all of them take.
//!
//! An execution is resumed from its instance in 7 us; from its image that is 27 us for parking, 12 for unparking and a lease
//! more. So it stays live while it may be resumed soon, and is parked, the one that waits longest first,
//! - when more than `MAX_LIVE_SUSPENDED` are live and it has waited for `BRIEF`: extensions that answer at once never pay;
//! - when it has waited for `LONG`, however few there are: a sidecar that only waits gets small.
//!
//! What is counted here is only memory outside of instances; live instances are bounded by their number. One whose image does not
//! fit *rests*: it keeps its instance until something else has gone, and then is tried again. While `MAX_LIVE_SUSPENDED` rest, no
//! more are taken in. Both bounds are shared by rule: see [`crate::share`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nexus_protocol::limits::MAX_LIVE_SUSPENDED;

use crate::share::Share;

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
    max_bytes: Share,
    live: BTreeMap<Seat, Waiting>,
    /// Those whose image did not fit.
    resting: BTreeMap<Seat, Waiting>,
    next_seat: u64,
    bytes: u64,
    parked: usize,
    parking: Parking,
}

/// What one session has of all this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// As counted here.
    pub bytes: u64,
    pub resting: usize,
}

/// Where one was that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    Live,
    Resting,
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
            max_bytes: Share::of(max_bytes),
            live: BTreeMap::new(),
            resting: BTreeMap::new(),
            next_seat: 0,
            bytes: 0,
            parked: 0,
            parking: Parking::Possible,
        }
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.limit()
    }

    /// What is over a lower bound stays until it goes by itself.
    pub fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = Share::of(max_bytes);
        self.live.append(&mut self.resting);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn parked(&self) -> usize {
        self.parked
    }

    /// Whether one more live execution that takes `bytes` beside its instance can be held for a session that has `part` so far,
    /// with it `executions`.
    pub fn has_room(&self, part: Part, executions: u64, bytes: u64) -> bool {
        let max_resting = Share::with_reserve(self.max_live as u64, self.max_live as u64);
        let resting = self.resting.len() as u64;
        let instances = self.live.len() as u64 + resting + 1;
        max_resting.allows(part.resting as u64 + 1, resting + 1)
            && Share::of(MAX_INSTANCES_HELD).allows(executions, instances)
            && self.has_bytes(part.bytes, bytes)
    }

    fn has_bytes(&self, own: u64, more: u64) -> bool {
        more == 0 || self.max_bytes.allows(own.saturating_add(more), self.bytes.saturating_add(more))
    }

    /// Takes a live execution in.
    pub fn add_live(&mut self, key: u64, bytes: u64, now: Instant) -> Seat {
        let seat = self.next_seat();
        self.live.insert(seat, Waiting { key, since: now });
        self.bytes += bytes;
        seat
    }

    /// The image of an execution did not fit: it keeps its instance.
    pub fn add_resting(&mut self, key: u64, now: Instant) -> Seat {
        let seat = self.next_seat();
        self.resting.insert(seat, Waiting { key, since: now });
        seat
    }

    fn next_seat(&mut self) -> Seat {
        self.next_seat += 1;
        Seat(self.next_seat)
    }

    /// An execution with an instance goes on, or ends, or is about to be parked. Its bytes stay counted in the last case.
    pub fn remove_live(&mut self, seat: Seat) -> Was {
        match self.live.remove(&seat) {
            Some(_) => Was::Live,
            None => {
                self.resting.remove(&seat);
                Was::Resting
            }
        }
    }

    /// Takes a parked execution of a session in that has `own` bytes so far. False: it does not fit.
    pub fn add_parked(&mut self, own: u64, bytes: u64) -> bool {
        if !self.has_bytes(own, bytes) {
            return false;
        }
        self.bytes += bytes;
        self.parked += 1;
        self.parking = Parking::Possible;
        true
    }

    #[cfg(test)]
    pub fn rests(&self, seat: Seat) -> bool {
        self.resting.contains_key(&seat)
    }

    pub fn remove_parked(&mut self) {
        self.parked -= 1;
    }

    /// Bytes are free again. The one of those that rest which has rested longest is tried once more: it is live from now on.
    pub fn remove_bytes(&mut self, bytes: u64) -> Option<u64> {
        self.bytes -= bytes;
        let (seat, waiting) = (bytes > 0).then(|| self.resting.pop_first())??;
        let key = waiting.key;
        self.live.insert(seat, waiting);
        Some(key)
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

    /// Of a session that has nothing.
    const NOTHING: Part = Part { bytes: 0, resting: 0 };

    #[test]
    fn bytes_are_bounded_and_one_that_does_not_fit_is_tried_again_when_something_has_gone() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 100);
        let seat = holdings.add_live(7, 40, start);
        let own = Part { bytes: 40, resting: 0 };
        assert!(holdings.has_room(own, 2, 60) && !holdings.has_room(own, 2, 61));
        assert_eq!(holdings.remove_live(seat), Was::Live);
        assert!(!holdings.add_parked(40, 61));
        let seat = holdings.add_resting(7, start);
        holdings.add_live(8, 0, start);
        assert_eq!(holdings.due(start + LONG), Some(8), "others have their turn meanwhile");
        assert_eq!(holdings.remove_bytes(0), None);
        assert_eq!((holdings.remove_bytes(10), holdings.due(start + LONG)), (Some(7), Some(7)));
        assert_eq!(holdings.remove_live(seat), Was::Live);
        assert!(holdings.add_parked(30, 61));
        assert_eq!((holdings.bytes(), holdings.parked()), (91, 1));
        let seat = holdings.add_resting(9, start);
        assert_eq!(holdings.remove_live(seat), Was::Resting);
    }

    #[test]
    fn who_fills_it_leaves_something_to_others() {
        let start = Instant::now();
        let mut holdings = Holdings::new(4, 8_000);
        let (mut greedy, mut key) = (NOTHING, 0);
        // as many as rest, each with an image that does not fit
        while holdings.has_room(greedy, key + 1, 0) {
            key += 1;
            holdings.add_resting(key, start);
            greedy.resting += 1;
        }
        assert_eq!(greedy.resting, MAX_LIVE_SUSPENDED);
        assert!(holdings.add_parked(0, 8_000));
        greedy.bytes = 8_000;
        assert!(!holdings.has_room(greedy, key + 1, 1) && !holdings.add_parked(8_000, 1));
        assert!(holdings.has_room(NOTHING, 1, 300) && holdings.add_parked(0, 300));
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
        assert!(holdings.add_parked(0, 1) && holdings.is_pressing(), "it works again");
        holdings.pause_parking(None);
        assert_eq!((holdings.due(start + LONG * 9), holdings.is_pressing()), (None, false));
    }
}
