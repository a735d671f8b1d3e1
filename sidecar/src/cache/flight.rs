//! One compilation that is under way, and those that wait for it.
//!
//! Invariants: a flight settles once, also when whoever compiles panics; whoever waits hears its own deadline and its own
//! cancellation, however long the compilation takes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nexus_protocol::WireError;

use super::Handler;
use crate::token::{StopCause, StopToken};

/// Between two looks of a waiter at its token: a cancelled one is heard after no more than this.
const WAIT_SLICE: Duration = Duration::from_millis(10);

/// Why there is no handler, and who hears so.
#[derive(Clone, Debug)]
pub struct Failed {
    pub error: WireError,
    pub concerns: Concerns,
}

/// Whom a failed compilation tells something. Who is not concerned tries for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Everybody with that source.
    Everybody,
    /// Whoever may use no more memory than these bytes.
    AtMost(u64),
    /// Only who compiled it: their time was over.
    Nobody,
}

impl Failed {
    pub fn for_all(error: WireError) -> Self {
        Self { error, concerns: Concerns::Everybody }
    }

    /// Whether one that may use so much memory fails in the same way.
    pub(super) fn concerns(&self, memory_limit_bytes: u64) -> bool {
        match self.concerns {
            Concerns::Everybody => true,
            Concerns::AtMost(limit) => memory_limit_bytes <= limit,
            Concerns::Nobody => false,
        }
    }
}

/// What came of a flight.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    Made(Arc<Handler>),
    Failed(Failed),
    /// Nothing that concerns anybody else.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flight {
    landing: Mutex<Option<Landing>>,
    settled: Condvar,
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, Option<Landing>> {
        self.landing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first word counts.
    pub fn settle(&self, landing: Landing) {
        self.lock().get_or_insert(landing);
        self.settled.notify_all();
    }

    /// Waits for as long as the token allows.
    pub fn wait(&self, token: &StopToken) -> Result<Landing, StopCause> {
        let mut landing = self.lock();
        loop {
            if let Some(landing) = &*landing {
                return Ok(landing.clone());
            }
            token.check()?;
            let slice = token.patience(WAIT_SLICE);
            landing = self.settled.wait_timeout(landing, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
