//! The pool: pristine instances, ready to run, most recently used first.
//!
//! ```text
//!   available --lease--> active --give_back--> available      (reset, every byte)
//!                          |  \---> suspended --> active      (held by an execution, not by the pool)
//!                          +------> terminated                (unsound, or more than are wanted)
//! ```
//! The pool counts; how many may be active at once is decided where executions are queued. An instance that is not given
//! back is dropped, which frees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError, Instance};

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
    max_available: usize,
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
            max_available: max,
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
        self.created.fetch_add(1, Ordering::Relaxed);
        self.engine.instantiate()
    }

    /// A pristine instance: the one that was used last, or a new one.
    pub fn lease(&self) -> Result<Instance, EngineError> {
        let pooled = self.lock().pop();
        match pooled {
            Some(instance) => {
                self.reused.fetch_add(u64::from(instance.uses > 0), Ordering::Relaxed);
                Ok(instance)
            }
            None => self.create(),
        }
    }

    /// Takes an instance back, through a reset. An unsound one is dropped. Returns the time that the reset took.
    pub fn give_back(&self, mut instance: Instance) -> Option<Duration> {
        let started = Instant::now();
        if instance.is_sound() {
            match instance.reset() {
                Ok(()) => {
                    let took = started.elapsed();
                    let mut available = self.lock();
                    if available.len() < self.max_available {
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
            terminated: self.terminated.load(Ordering::Relaxed),
        }
    }
}
