//! Bytes that are counted for as long as they are there.
//!
//! Invariant: what is charged is given back by the drop of its [`Charge`], and by nothing else. So a value counts until the
//! last reader of it is gone, however many versions of its state have come since.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_protocol::WireError;

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

    /// Counts bytes, or says which limit they would break.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, WireError> {
        self.add(bytes)?;
        if let Some(whole) = &self.within
            && let Err(error) = whole.add(bytes)
        {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(error);
        }
        Ok(Charge { budget: self.clone(), bytes })
    }

    fn add(&self, bytes: u64) -> Result<(), WireError> {
        // two that race may both see the other's bytes and fail; neither can get over the limit
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if used <= self.limit {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        Err(WireError::resource_limit(self.resource, self.limit, used))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(whole) = &self.budget.within {
            whole.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ContextValue;

    use super::*;

    #[test]
    fn a_part_counts_in_the_whole_until_its_charges_are_dropped() {
        let whole = Budget::new("whole", 100);
        let (a, b) = (whole.part("part", 80), whole.part("part", 80));
        let first = a.charge(70).unwrap();
        assert_eq!(a.charge(11).unwrap_err().context["resource"], ContextValue::Text("part".into()));
        assert_eq!(b.charge(31).unwrap_err().context["resource"], ContextValue::Text("whole".into()));
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
}
