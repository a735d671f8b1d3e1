//! Places for executions that may be suspended.
//!
//! A sidecar holds `maxSuspended` of them, and one more fails when it suspends, with its effects done. So what
//! [`run`](crate::Client::run) begins waits for a place, and leaves it when it is over.
//!
//! Invariants: never more are taken than there are. Runs that wait for one another (an extension that makes a run of its own,
//! calls that are polled in another order than they were made) cannot wait for ever: when no place has become free for as
//! long as a suspension lasts, those that hold them have expired.

use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Of a run, on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PlaceNumber(u64);

/// See the module.
pub(crate) struct Places {
    limit: usize,
    /// How long it takes until whoever holds a place has expired. `None`: nobody does.
    expiry: Option<Duration>,
    taken: HashSet<PlaceNumber>,
    last: u64,
    /// Since when somebody has waited, without a place having become free.
    wanted_since: Option<Instant>,
}

impl Places {
    /// Of what the sidecar says in its hello. No limit: it is an older one, and says how many are too many when they are.
    pub(crate) fn new(limit: Option<u64>, suspension_kept_ms: u64) -> Self {
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX).max(1));
        // Half as long again: by then the sidecar has noticed.
        let expiry = Some(Duration::from_millis(suspension_kept_ms) * 3 / 2).filter(|expiry| !expiry.is_zero());
        Self { limit, expiry, taken: HashSet::new(), last: 0, wanted_since: None }
    }

    /// Of somebody who will want a place.
    pub(crate) fn number(&mut self) -> PlaceNumber {
        self.last += 1;
        PlaceNumber(self.last)
    }

    /// Whether one can be taken. If not, the time until the holders have expired begins to run, if it does not yet.
    pub(crate) fn are_free(&mut self, now: Instant) -> bool {
        if self.taken.len() >= self.limit {
            let since = *self.wanted_since.get_or_insert(now);
            if self.expiry.is_none_or(|expiry| now.saturating_duration_since(since) < expiry) {
                return false;
            }
            self.taken.clear();
        }
        self.wanted_since = None;
        true
    }

    /// False: there is none.
    pub(crate) fn take(&mut self, number: PlaceNumber, now: Instant) -> bool {
        if self.taken.contains(&number) {
            return true;
        }
        let free = self.are_free(now);
        if free {
            self.taken.insert(number);
        }
        free
    }

    /// Whether it had been taken.
    pub(crate) fn leave(&mut self, number: PlaceNumber) -> bool {
        let left = self.taken.remove(&number);
        if left {
            self.wanted_since = None;
        }
        left
    }

    /// Who has been refused asks again after this time, unless a place becomes free before. `None`: not before then.
    pub(crate) fn ask_again_in(&self, now: Instant) -> Option<Duration> {
        let since = self.wanted_since?;
        Some(self.expiry?.saturating_sub(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_place_is_taken_once_and_who_had_none_leaves_none() {
        let now = Instant::now();
        let mut places = Places::new(Some(2), 30_000);
        let [a, b, c] = [places.number(), places.number(), places.number()];
        assert_eq!([a, a, b, c].map(|number| places.take(number, now)), [true, true, true, false]);
        assert_eq!([c, a, a].map(|number| places.leave(number)), [false, true, false]);
        assert_eq!([c, a].map(|number| places.take(number, now)), [true, false]);
    }

    #[test]
    fn who_holds_places_for_longer_than_a_suspension_lasts_has_expired() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let mut places = Places::new(Some(1), 200);
        let [a, b, c] = [places.number(), places.number(), places.number()];
        assert!(places.take(a, start));
        assert_eq!(places.ask_again_in(start), None, "nobody was refused");
        assert!(!places.take(b, at(1_000)), "the time runs from the first refusal on");
        assert_eq!(places.ask_again_in(at(1_100)), Some(200 * MS));
        assert!(!places.take(b, at(1_299)));
        assert!(places.take(b, at(1_300)));
        assert!(!places.leave(a), "its place is another's");
        assert!(!places.take(c, at(1_400)));
        assert!(places.leave(b));
        assert_eq!(places.ask_again_in(at(1_500)), None);
        assert!(places.take(c, at(1_500)));
    }

    #[test]
    fn there_is_always_one_and_without_a_limit_one_for_everybody() {
        let now = Instant::now();
        let mut none = Places::new(Some(0), 0);
        let (first, second) = (none.number(), none.number());
        assert!(none.take(first, now) && !none.take(second, now + 1_000_000 * MS));
        let mut unlimited = Places::new(None, 30_000);
        assert!((0..5_000).all(|_| {
            let number = unlimited.number();
            unlimited.take(number, now)
        }));
    }
}
