//! Bytes that are counted for as long as they are there: the one way to count what peers make the process hold.
//!
//! Invariant: what is charged is given back by the drop of its [`Charge`], and by nothing else. So a value counts until the
//! last reader of it is gone, however many versions of its state have come since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_protocol::limits::RETRY_AFTER_MS;
use nexus_protocol::{ErrorCode, WireError};

use crate::halt::Halt;

/// A bound on bytes, and how many of them are in use. May be part of a larger one.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    limit: u64,
    /// Named in errors.
    resource: &'static str,
    within: Option<Arc<Self>>,
}

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
        let Self { resource, limit, .. } = self;
        self.overloaded(format!("the sidecar has all the bytes of requests that it takes: {resource} is {limit}"))
    }
}

impl From<Full> for WireError {
    fn from(Full { resource, limit, count }: Full) -> Self {
        Self::resource_limit(resource, limit, count)
    }
}

impl From<Full> for Halt {
    fn from(full: Full) -> Self {
        WireError::from(full).into()
    }
}

impl Budget {
    pub fn new(resource: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit, resource, within: None })
    }

    /// A budget whose charges count here as well.
    pub fn part(self: &Arc<Self>, resource: &'static str, limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit, resource, within: Some(self.clone()) })
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether all of it is in use, or more: see [`Charge::set`].
    pub fn is_full(&self) -> bool {
        self.full().is_some()
    }

    /// Why there is no room, when it is full.
    pub fn full(&self) -> Option<Full> {
        let (resource, limit, count) = (self.resource, self.limit, self.used());
        (count >= limit).then_some(Full { resource, limit, count: count.max(limit.saturating_add(1)) })
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
        self.add(bytes)?;
        if let Some(whole) = &self.within
            && let Err(full) = whole.add(bytes)
        {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(full);
        }
        Ok(())
    }

    fn add(&self, bytes: u64) -> Result<(), Full> {
        // two that race may both see the other's bytes and fail; neither can get over the limit
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        Err(Full { resource: self.resource, limit: self.limit, count: used })
    }

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
        assert_eq!(a.charge(11).unwrap_err(), Full { resource: "part", limit: 80, count: 81 });
        assert_eq!(b.charge(31).unwrap_err(), Full { resource: "whole", limit: 100, count: 101 });
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
    fn a_charge_grows_shrinks_and_moves() {
        let whole = Budget::new("whole", 100);
        let part = whole.part("part", 50);
        let mut charge = part.nothing();
        charge.resize(40).unwrap();
        assert!(charge.resize(51).is_err());
        assert_eq!((charge.bytes(), whole.used()), (40, 40));
        charge.set(60);
        assert_eq!((part.is_full(), whole.used()), (true, 60));
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
}
