//! Bytes that are counted for as long as they are there: the one way to count what peers make the process hold.
//!
//! A budget may be a part of another one, as each connection's is of that of all. The part has a limit of its own, and what is
//! used of it decides how much of the whole it may take: see [`crate::share`].
//!
//! Invariant: what is charged is given back by the drop of its [`Charge`], and by nothing else. So a value counts until the
//! last reader of it is gone, however many versions of its state have come since.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_protocol::limits::RETRY_AFTER_MS;
use nexus_protocol::{ErrorCode, WireError};

use crate::halt::Halt;
use crate::share::{Share, Whose};

/// A bound on bytes, and how many of them are in use. May be part of a larger one.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    /// Of the whole, those who have a part share it by rule; nobody else has anything of the reserve.
    limit: AtomicU64,
    /// Named in errors.
    resource: &'static str,
    within: Option<Arc<Self>>,
    /// Of large charges that were given back, since the start.
    turned_over: AtomicU64,
}

/// From this size on memory that is freed is worth giving back to the system.
const LARGE_BYTES: u64 = 256 << 10;

/// Bytes in use.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub resource: &'static str,
    pub limit: u64,
    /// With what there was no room for.
    pub count: u64,
    pub whose: Whose,
}

impl Full {
    /// For what another time may find room for.
    pub fn overloaded(self, message: String) -> WireError {
        WireError::new(ErrorCode::Overloaded, message)
            .with_context_number("retryAfterMs", RETRY_AFTER_MS)
            .with_context_text("resource", self.resource)
            .with_context_number("limit", self.limit)
            .with_context_number("count", self.count)
    }

    /// The bytes of a request find no room.
    pub fn of_request(self) -> WireError {
        self.overloaded(format!("the sidecar has all the bytes of requests that it takes: {self}"))
    }
}

impl Display for Full {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { resource, limit, whose, .. } = self;
        write!(f, "{resource} is {limit}{whose}")
    }
}

impl From<Full> for WireError {
    fn from(full: Full) -> Self {
        let Full { resource, limit, count, .. } = full;
        let mut error = Self::resource_limit(resource, limit, count);
        error.message = format!("{resource}: {count} is too much: {full}");
        error
    }
}

impl From<Full> for Halt {
    fn from(full: Full) -> Self {
        WireError::from(full).into()
    }
}

impl Budget {
    pub fn new(resource: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Self::with(resource, limit, None))
    }

    /// A budget whose charges count here as well.
    pub fn part(self: &Arc<Self>, resource: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Self::with(resource, limit, Some(self.clone())))
    }

    fn with(resource: &'static str, limit: u64, within: Option<Arc<Self>>) -> Self {
        let (used, turned_over) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { used, limit: AtomicU64::new(limit), resource, within, turned_over }
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// What is over a lower limit stays until it goes by itself.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Why not one byte more may be taken of it, when that is so.
    pub fn full(&self) -> Option<Full> {
        let own = self.used().saturating_add(1);
        let of_all = || {
            let whole = self.within.as_ref()?;
            whole.refuses(own, whole.used().saturating_add(1))
        };
        self.refuses(own, own).or_else(of_all)
    }

    /// Counts bytes, or says which limit they would break.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, Full> {
        self.take(bytes)?;
        Ok(Charge { budget: self.clone(), bytes })
    }

    /// A charge that may grow.
    pub fn nothing(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    fn take(&self, bytes: u64) -> Result<(), Full> {
        // two that race may both see the other's bytes and fail; neither can get over the limit, nor at what is kept for others
        let own = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(full) = self.refuses(own, own) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(full);
        }
        let Some(whole) = &self.within else { return Ok(()) };
        let total = whole.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(full) = whole.refuses(own, total) {
            whole.used.fetch_sub(bytes, Ordering::Relaxed);
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(full);
        }
        Ok(())
    }

    /// Why a part that has `own` may not be one of those that have `total`. Of a part itself all is its own.
    fn refuses(&self, own: u64, total: u64) -> Option<Full> {
        let (resource, limit) = (self.resource, self.limit());
        let (allowed, whose) = match self.within {
            Some(_) => (total <= limit, Whose::Own),
            None => (Share::of(limit).allows(own, total), Whose::All),
        };
        (!allowed).then_some(Full { resource, limit, count: total, whose })
    }

    /// For what is there already. It uses up the reserve like anything else: so whoever can says before how much it will be.
    fn add_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.within {
            whole.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.within {
            whole.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        if bytes >= LARGE_BYTES {
            self.within.as_deref().unwrap_or(self).turned_over.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of large charges that were given back since the start.
    pub fn turned_over(&self) -> u64 {
        self.turned_over.load(Ordering::Relaxed)
    }
}

impl Charge {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts another number of bytes from now on. When there is no room for more of them it stays as it is.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Full> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => return Ok(()),
            Some(more) => self.budget.take(more)?,
            None => self.budget.give_back(self.bytes.saturating_sub(bytes)),
        }
        self.bytes = bytes;
        Ok(())
    }

    /// As `resize`, for bytes that are there already: they count, also beyond the limit, and nothing else finds room meanwhile.
    pub fn set(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => return,
            Some(more) => self.budget.add_anyway(more),
            None => self.budget.give_back(self.bytes.saturating_sub(bytes)),
        }
        self.bytes = bytes;
    }

    /// All of it; nothing is left here.
    pub fn take(&mut self) -> Self {
        Self { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// Another charge of the same budget is counted here from now on.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.budget, &other.budget));
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_counts_in_the_whole_until_its_charges_are_dropped() {
        let whole = Budget::new("whole", 100);
        let (a, b) = (whole.part("part", 80), whole.part("part", 80));
        let first = a.charge(70).unwrap();
        assert_eq!(a.charge(11).unwrap_err(), Full { resource: "part", limit: 80, count: 81, whose: Whose::Own });
        assert_eq!(b.charge(31).unwrap_err(), Full { resource: "whole", limit: 100, count: 101, whose: Whose::All });
        assert_eq!((a.used(), b.used(), whole.used()), (70, 0, 70));
        let second = b.charge(30).unwrap();
        drop((first, second));
        assert_eq!((a.used(), b.used(), whole.used()), (0, 0, 0));
    }

    #[test]
    fn a_charge_that_cannot_be_is_not_counted() {
        let budget = Budget::new("bytes", 10);
        assert!(budget.charge(u64::MAX).is_err());
        assert_eq!(budget.used(), 0);
        assert!(budget.charge(10).is_ok());
    }

    #[test]
    fn what_is_over_a_lower_limit_stays_and_nothing_more_is_taken() {
        let whole = Budget::new("whole", 100);
        let part = whole.part("part", u64::MAX);
        let held = part.charge(90).unwrap();
        whole.set_limit(50);
        let refused = Full { resource: "whole", limit: 50, count: 91, whose: Whose::All };
        assert_eq!((part.charge(1).unwrap_err(), held.bytes(), whole.used()), (refused, 90, 90));
        whole.set_limit(200);
        assert!(part.charge(110).is_ok() && part.charge(111).is_err());
    }

    #[test]
    fn a_charge_grows_shrinks_and_moves() {
        let whole = Budget::new("whole", 100);
        let part = whole.part("part", 50);
        let mut charge = part.nothing();
        charge.resize(40).unwrap();
        assert!(charge.resize(51).is_err());
        assert_eq!((charge.bytes(), whole.used()), (40, 40));
        charge.set(60);
        assert_eq!((part.full().map(|full| full.resource), whole.used()), (Some("part"), 60));
        charge.resize(10).unwrap();
        let moved = charge.take();
        drop(charge);
        assert_eq!((part.used(), whole.used()), (10, 10));
        let mut all = part.charge(5).unwrap();
        all.merge(moved);
        assert_eq!((all.bytes(), part.used()), (15, 15));
        drop(all);
        assert_eq!((part.used(), whole.used()), (0, 0));
    }

    #[test]
    fn only_large_charges_that_were_given_back_are_worth_a_look_at_the_heap() {
        let whole = Budget::new("whole", 1 << 30);
        let part = whole.part("part", 1 << 30);
        drop((part.charge(LARGE_BYTES - 1).unwrap(), whole.charge(LARGE_BYTES - 1).unwrap()));
        assert_eq!((whole.turned_over(), part.turned_over(), LARGE_BYTES), (0, 0, 262_144));
        let kept = part.charge(LARGE_BYTES).unwrap();
        drop((part.charge(LARGE_BYTES).unwrap(), whole.charge(LARGE_BYTES + 1).unwrap()));
        assert_eq!(
            (whole.turned_over(), part.turned_over()),
            (2 * LARGE_BYTES + 1, 0),
            "all of it counts in the whole"
        );
        drop(kept);
        assert_eq!(whole.turned_over(), 3 * LARGE_BYTES + 1);
    }

    #[test]
    fn a_refusal_names_the_limit_and_whose_it_is() {
        let whole = Budget::new("maxTotal", 100);
        let (a, b) = (whole.part("maxOwn", 80), whole.part("maxOwn", 80));
        let _held = a.charge(80).unwrap();
        assert_eq!(a.charge(1).unwrap_err().to_string(), "maxOwn is 80 for one connection");
        let refused = b.charge(60).unwrap_err().to_string();
        assert_eq!(refused, "maxTotal is 100, and the reserve beyond it is for connections that hold less");
    }

    #[test]
    fn beyond_the_limit_of_all_there_is_room_for_those_who_hold_little() {
        let whole = Budget::new("whole", 8_000);
        let parts: Vec<Arc<Budget>> = (0..4).map(|_| whole.part("part", 8_000)).collect();
        let greedy = parts[0].charge(8_000).unwrap();
        let refused = parts[0].charge(1).unwrap_err();
        assert_eq!(refused, Full { resource: "part", limit: 8_000, count: 8_001, whose: Whose::Own });
        assert_eq!(parts[1].charge(500).unwrap_err().whose, Whose::All);
        let some = parts[1].charge(300).unwrap();
        assert!(parts[1].charge(200).is_err() && parts[1].full().is_none());
        let less = parts[2].charge(100).unwrap();
        assert!(parts[3].charge(1).is_ok());
        // what is there whatever the rule says leaves nothing
        let mut forced = parts[3].nothing();
        forced.set(600);
        assert_eq!(parts.iter().filter(|part| part.full().is_none()).count(), 0);
        drop((greedy, some, less, forced));
        assert_eq!(whole.used(), 0);
    }

    #[test]
    fn those_who_race_get_at_no_more_than_there_is() {
        const LIMIT: u64 = 1 << 20;
        let whole = Budget::new("whole", LIMIT);
        let race = |seed: u64| {
            let part = whole.part("part", LIMIT);
            let mut random = crate::random::Random(seed);
            let mut held = Vec::new();
            for _ in 0..5_000 {
                held.extend(part.charge(1 + random.next() % (LIMIT >> 6)));
                assert!(held.iter().map(Charge::bytes).sum::<u64>() == part.used());
                if random.chance(10) {
                    held.truncate(held.len() / 2);
                }
            }
            held
        };
        let held: Vec<Vec<Charge>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || race(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sum = held.iter().flatten().map(Charge::bytes).sum::<u64>();
        assert!(sum == whole.used() && sum <= LIMIT + LIMIT / 8, "{sum}");
        assert!(whole.part("part", LIMIT).charge(64).is_ok(), "a newcomer finds something");
        drop(held);
        assert_eq!(whole.used(), 0);
    }
}
