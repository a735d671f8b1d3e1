//! The pools of the two guests. That of the stack style is made, engine and all, when the first handler needs it: whoever
//! always awaits never pays for it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nexus_protocol::message::SuspendMode;

use crate::engine::{Engine, EngineError, Instance};
use crate::pool::{Pool, PoolCounts};

/// See the module.
pub struct Pools {
    engine: Arc<Engine>,
    max: usize,
    direct: Pool,
    stack: OnceLock<Pool>,
    /// Held while the second engine starts.
    starting: Mutex<()>,
}

impl Pools {
    /// `min` instances for handlers that await are made now; at most `max` of each kind are kept.
    pub fn new(engine: Arc<Engine>, min: usize, max: usize) -> Result<Self, EngineError> {
        let direct = Pool::new(engine.clone(), min, max)?;
        Ok(Self { engine, max, direct, stack: OnceLock::new(), starting: Mutex::new(()) })
    }

    fn of(&self, mode: SuspendMode) -> Result<&Pool, EngineError> {
        match mode {
            SuspendMode::Await => Ok(&self.direct),
            SuspendMode::Stack => self.stack(),
        }
    }

    fn stack(&self) -> Result<&Pool, EngineError> {
        if let Some(pool) = self.stack.get() {
            return Ok(pool);
        }
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = self.stack.get() {
            return Ok(pool);
        }
        let pool = Pool::new(self.engine.start_stack_style()?, 0, self.max)?;
        Ok(self.stack.get_or_init(|| pool))
    }

    /// Those that exist.
    fn all(&self) -> impl Iterator<Item = &Pool> {
        std::iter::once(&self.direct).chain(self.stack.get())
    }

    /// The one that an instance came from.
    fn home(&self, mode: SuspendMode) -> &Pool {
        match mode {
            SuspendMode::Await => &self.direct,
            SuspendMode::Stack => self.stack.get().unwrap_or(&self.direct),
        }
    }

    /// A pristine instance of one kind.
    pub fn lease(&self, mode: SuspendMode) -> Result<Instance, EngineError> {
        self.of(mode)?.lease()
    }

    /// As [`Pool::give_back`].
    pub fn give_back(&self, instance: Instance) -> Option<Duration> {
        self.home(instance.mode()).give_back(instance)
    }

    pub fn has_surplus(&self) -> bool {
        self.all().any(Pool::has_surplus)
    }

    pub fn trim(&self) {
        self.all().for_each(Pool::trim);
    }

    /// Sums over both.
    pub fn counts(&self) -> PoolCounts {
        self.all().fold(PoolCounts::default(), |sum, pool| {
            let counts = pool.counts();
            PoolCounts {
                available: sum.available + counts.available,
                created: sum.created + counts.created,
                reused: sum.reused + counts.reused,
                terminated: sum.terminated + counts.terminated,
            }
        })
    }
}
