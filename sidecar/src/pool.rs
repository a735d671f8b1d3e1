//! The pool: pristine instances, ready to run, most recently used first.
//!
//! ```text
//!   available --lease--> active --give_back--> available      (reset, every byte)
//!                          |  \---> suspended --> active      (held by an execution, not by the pool)
//!                          +------> terminated                (unsound, or more than are wanted)
//! ```
//! It keeps as many instances as may run; while executions are suspended, as many more as were lately out at once, since the
//! next ones will suspend as well and making an instance costs more than most handlers. `trim` lets these go in time.
//! How many may be active at once is decided where executions are queued. An instance that is dropped instead of given back
//! counts as terminated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::lease::Ledger;
use crate::engine::{Engine, EngineError, Instance};

/// A peak that is over loses this part of itself at each trim.
const PEAK_DECAY: usize = 50;

#[derive(Debug, Default, Clone, Copy)]
pub struct PoolCounts {
    pub available: u64,
    pub created: u64,
    pub reused: u64,
    pub terminated: u64,
}

/// See the module.
pub struct Pool {
    engine: Arc<Engine>,
    available: Mutex<Vec<Instance>>,
    max_running: usize,
    /// Leased and not given back.
    ledger: Arc<Ledger>,
    created: AtomicU64,
    reused: AtomicU64,
    terminated: AtomicU64,
}

impl Pool {
    /// `min` instances are made now; at most `max` are kept.
    pub fn new(engine: Arc<Engine>, min: usize, max: usize) -> Result<Self, EngineError> {
        let pool = Self {
            engine,
            available: Mutex::new(Vec::with_capacity(max)),
            max_running: max,
            ledger: Arc::default(),
            created: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            terminated: AtomicU64::new(0),
        };
        for _ in 0..min {
            let instance = pool.create()?;
            pool.lock().push(instance);
        }
        Ok(pool)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.available.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self) -> Result<Instance, EngineError> {
        let made = self.engine.instantiate()?;
        self.created.fetch_add(1, Ordering::Relaxed);
        Ok(made)
    }

    /// A pristine instance: the one that was used last, or a new one.
    pub fn lease(&self) -> Result<Instance, EngineError> {
        let pooled = self.lock().pop();
        let mut instance = match pooled {
            Some(instance) => {
                self.reused.fetch_add(u64::from(instance.uses > 0), Ordering::Relaxed);
                instance
            }
            None => self.create()?,
        };
        instance.lease = self.ledger.lease();
        Ok(instance)
    }

    /// Leased and not given back.
    pub fn out(&self) -> usize {
        self.ledger.out()
    }

    fn to_keep(&self) -> usize {
        self.ledger.peak().max(self.max_running)
    }

    /// Whether more is kept than may run, so that `trim` has to be called again.
    pub fn has_surplus(&self) -> bool {
        self.ledger.peak() > self.max_running
    }

    /// Lets go of what was kept for a peak that is over, a little at each call.
    pub fn trim(&self) {
        let out = self.ledger.out();
        let peak = self.ledger.peak();
        if peak <= self.max_running {
            return;
        }
        let lower = (peak - peak.div_ceil(PEAK_DECAY)).max(out);
        self.ledger.lower_peak(lower);
        let surplus = {
            let mut available = self.lock();
            let keep = self.to_keep().saturating_sub(out).max(self.max_running).min(available.len());
            available.split_off(keep)
        };
        self.terminated.fetch_add(surplus.len() as u64, Ordering::Relaxed);
    }

    /// Takes an instance back, through a reset. An unsound one is dropped. Returns the time that the reset took.
    pub fn give_back(&self, mut instance: Instance) -> Option<Duration> {
        instance.lease.end();
        let started = Instant::now();
        if instance.is_sound() {
            match instance.reset() {
                Ok(()) => {
                    let took = started.elapsed();
                    let mut available = self.lock();
                    if available.len() < self.to_keep() {
                        available.push(instance);
                        return Some(took);
                    }
                }
                Err(e) => log::error!("{e}; the instance is given up"),
            }
        }
        self.terminated.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub fn counts(&self) -> PoolCounts {
        PoolCounts {
            available: self.lock().len() as u64,
            created: self.created.load(Ordering::Relaxed),
            reused: self.reused.load(Ordering::Relaxed),
            terminated: self.terminated.load(Ordering::Relaxed) + self.ledger.lost(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::engine::EngineOptions;

    fn pool(min: usize, max: usize) -> Pool {
        static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
        let engine = ENGINE.get_or_init(|| Engine::start(EngineOptions::default()).unwrap());
        Pool::new(engine.clone(), min, max).unwrap()
    }

    /// Available, created, reused, terminated.
    fn counts(pool: &Pool) -> [u64; 4] {
        let counts = pool.counts();
        [counts.available, counts.created, counts.reused, counts.terminated]
    }

    fn lease(pool: &Pool, count: usize) -> Vec<Instance> {
        (0..count).map(|_| pool.lease().unwrap()).collect()
    }

    #[test]
    fn an_instance_comes_back_and_counts_as_reused_once_it_has_run() {
        let pool = pool(2, 2);
        assert_eq!((counts(&pool), pool.out()), ([2, 2, 0, 0], 0));
        let mut instance = pool.lease().unwrap();
        assert_eq!((counts(&pool), pool.out()), ([1, 2, 0, 0], 1));
        instance.uses += 1;
        assert!(pool.give_back(instance).is_some());
        assert_eq!((counts(&pool), pool.out()), ([2, 2, 0, 0], 0));
        // the one that was used last
        let both = lease(&pool, 2);
        assert_eq!(both.iter().map(|instance| instance.uses).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((counts(&pool), pool.out()), ([0, 2, 1, 0], 2));
        drop(both);
        assert_eq!((counts(&pool), pool.out()), ([0, 2, 1, 2], 0));
    }

    #[test]
    fn without_a_peak_no_more_are_kept_than_may_run() {
        let pool = pool(0, 1);
        for _ in 0..3 {
            let instance = pool.lease().unwrap();
            assert!(pool.give_back(instance).is_some());
        }
        assert_eq!((counts(&pool), pool.has_surplus()), ([1, 1, 0, 0], false));
        pool.trim();
        assert_eq!((counts(&pool), pool.has_surplus()), ([1, 1, 0, 0], false));
        // one that was never out
        assert!(pool.give_back(pool.engine.instantiate().unwrap()).is_none());
        assert_eq!(counts(&pool), [1, 1, 0, 1]);
    }

    #[test]
    fn as_many_are_kept_as_were_out_at_once_until_that_is_long_ago() {
        const PEAK: usize = 4;
        let pool = pool(0, 1);
        for instance in lease(&pool, PEAK) {
            assert!(pool.give_back(instance).is_some());
        }
        assert_eq!((counts(&pool), pool.has_surplus()), ([4, 4, 0, 0], true));
        // each trim lowers the peak by one, as long as it is below PEAK_DECAY
        for left in [3, 2, 1, 1] {
            pool.trim();
            assert_eq!((counts(&pool), pool.has_surplus()), ([left, 4, 0, 4 - left], left > 1));
        }
    }

    #[test]
    fn a_peak_that_is_not_over_stays() {
        let pool = pool(0, 1);
        let mut out = lease(&pool, 4);
        for _ in 0..2 {
            assert!(pool.give_back(out.pop().unwrap()).is_some());
        }
        for _ in 0..8 {
            pool.trim();
        }
        // two are out and may come back, and one may run
        assert_eq!((counts(&pool), pool.has_surplus(), pool.out()), ([1, 4, 0, 1], true, 2));
        for instance in out {
            pool.give_back(instance);
        }
        assert_eq!(counts(&pool), [2, 4, 0, 2]);
    }

    #[test]
    fn a_high_peak_falls_by_a_part_of_itself() {
        const PEAK: usize = PEAK_DECAY + 1;
        let pool = pool(0, 1);
        for instance in lease(&pool, PEAK) {
            pool.give_back(instance);
        }
        pool.trim();
        assert_eq!(counts(&pool), [PEAK as u64 - 2, PEAK as u64, 0, 2]);
    }

    #[test]
    fn one_that_is_not_sound_does_not_come_back() {
        let pool = pool(0, 1);
        let mut instance = pool.lease().unwrap();
        instance.distrust();
        assert!(pool.give_back(instance).is_none());
        assert_eq!(counts(&pool), [0, 1, 0, 1]);
    }
}
