//! Whether workers with a connection each still live: one that stands still, or that stays when its client has gone, would keep its
//! place for ever.
//!
//! Looks are counted, not time: where the whole sidecar was stopped for a while, a worker is not to blame for that.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nexus_protocol::limits::WORKER_STILL_LOOKS;

use super::{Fleet, Stage};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

impl Fleet {
    /// The life of the thread that looks for signs of life.
    pub(super) fn look_for_life(&self) {
        let mut still = HashMap::<u64, u32>::new();
        loop {
            let until = Instant::now() + LOOK;
            let mut inner = self.lock();
            while Instant::now() < until {
                if inner.stage == Stage::Ending {
                    return;
                }
                let left = until.saturating_duration_since(Instant::now());
                inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            drop(inner);
            let all = self.all();
            still.retain(|number, _| all.iter().any(|worker| worker.number == *number));
            for worker in all {
                if worker.supervisor.remote.has_answered() && !worker.is_leaving() {
                    still.remove(&worker.number);
                    continue;
                }
                let looks = still.entry(worker.number).or_default();
                *looks += 1;
                if *looks == WORKER_STILL_LOOKS {
                    log::warn!("a worker stands still, or does not end with its client: it is killed");
                    worker.supervisor.kill();
                }
            }
        }
    }
}
