//! The pools of the two guests. That of the stack style is made, engine and all, when the first handler needs it: whoever
//! always awaits never pays for it.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nexus_protocol::message::SuspendMode;

use crate::engine::{Engine, EngineError, Instance};
use crate::pool::{Pool, PoolCounts};
use crate::token::{StopCause, StopToken};

/// Between two looks at its token of one who waits for the second engine.
const WAIT_SLICE: Duration = Duration::from_millis(10);

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("there was no time left to wait for the engine")]
    Stopped(StopCause),
}

impl From<StopCause> for LeaseError {
    fn from(cause: StopCause) -> Self {
        Self::Stopped(cause)
    }
}

/// See the module.
pub struct Pools {
    engine: Arc<Engine>,
    max: usize,
    direct: Pool,
    stack: OnceLock<Pool>,
    /// Whether somebody starts the second engine.
    starting: Mutex<bool>,
    started: Condvar,
}

/// The right to start the second engine, up to its drop.
struct Starting<'a>(&'a Pools);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        *self.0.starting.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.started.notify_all();
    }
}

impl Pools {
    /// `min` instances for handlers that await are made now; at most `max` of each kind are kept.
    pub fn new(engine: Arc<Engine>, min: usize, max: usize) -> Result<Self, EngineError> {
        let direct = Pool::new(engine.clone(), min, max)?;
        Ok(Self { engine, max, direct, stack: OnceLock::new(), starting: Mutex::new(false), started: Condvar::new() })
    }

    fn of(&self, mode: SuspendMode, token: &StopToken) -> Result<&Pool, LeaseError> {
        match mode {
            SuspendMode::Await => Ok(&self.direct),
            SuspendMode::Stack => self.stack(token),
        }
    }

    /// One starts it; the others wait for that, no longer than they have time.
    fn stack(&self, token: &StopToken) -> Result<&Pool, LeaseError> {
        if let Some(pool) = self.stack.get() {
            return Ok(pool);
        }
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        while *starting {
            token.check()?;
            let slice = token.patience(WAIT_SLICE);
            starting = self.started.wait_timeout(starting, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(pool) = self.stack.get() {
            return Ok(pool);
        }
        *starting = true;
        drop(starting);
        let _starting = Starting(self);
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
    pub fn lease(&self, mode: SuspendMode, token: &StopToken) -> Result<Instance, LeaseError> {
        Ok(self.of(mode, token)?.lease()?)
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
