//! Which instances are out of their pool. An instance carries its lease; one that is dropped, wherever and by whatever, takes
//! itself off the list, so that a panic loses no count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a pool knows of the instances that it has given out.
#[derive(Debug, Default)]
pub struct Ledger {
    out: AtomicUsize,
    /// Highest `out` of late.
    peak: AtomicUsize,
    lost: AtomicU64,
}

/// Whether an instance is out. Dropping it while it is says that the instance will not come back.
#[derive(Debug, Default)]
pub struct Lease(Option<Arc<Ledger>>);

impl Ledger {
    /// One more is out.
    pub fn lease(self: &Arc<Self>) -> Lease {
        let out = self.out.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(out, Ordering::Relaxed);
        Lease(Some(self.clone()))
    }

    pub fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    pub fn lower_peak(&self, peak: usize) {
        self.peak.store(peak, Ordering::Relaxed);
    }

    /// Instances that were dropped instead of given back.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Lease {
    /// The instance has come back.
    pub fn end(&mut self) {
        if let Some(ledger) = self.0.take() {
            ledger.out.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(ledger) = self.0.take() {
            ledger.out.fetch_sub(1, Ordering::Relaxed);
            ledger.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
