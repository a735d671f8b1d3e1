//! One look of the watchdog at the server, on which everybody's deadline hangs.
//!
//! **The rule.** It does nothing whose cost a peer chooses, and takes no lock that is held while a guest runs, bytes are copied
//! or a socket is written to. All that it does, with the books in hand:
//! - it gives up whoever is stuck (`rescue`), at the most a few threads ever;
//! - it takes what has expired out of the books, a bounded number at a look, and jobs that have waited for too long, which are
//!   as many as the queue holds at the most;
//! - it notices what handlers have logged that somebody wants to hear while they run;
//! - it has runs that take their time give way, and takes the last instance from one that has had it for long enough;
//! - it starts workers, a few at a look, for those that have ended since their threads could not come to the front again, and for
//!   runs that go on beside;
//! - it looks whether an end has come (`drain`), and whether answers are held back;
//! - it wakes who is needed: a worker for the poller or for a job, the housekeeper, the thread that has the poller.
//!
//! What follows from it is an errand of the thread that has the poller, or a chore of the housekeeper.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nexus_protocol::limits::LAST_INSTANCE_TRIAL_MS;

use super::Server;
use super::errand::Errand;
use super::hub::{Expired, Way};
use super::state::State;
use crate::engine::watchdog::Vigilance;
use crate::exit::ExitCode;
use crate::faults::{self, Point};
use crate::observe::SuspensionEvent;

/// What the last free instance is lent for while others wait for it.
const TRIAL: Duration = Duration::from_millis(LAST_INSTANCE_TRIAL_MS);
/// Workers that are started at one look.
const STARTED_AT_ONCE: usize = 4;
/// A job that has waited this long gets a worker of its own.
const MAX_WAIT: Duration = Duration::from_millis(1);
/// Time between two looks for what has expired.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(20);

impl Server {
    /// See the module.
    pub(super) fn tick(self: &Arc<Self>, now: Instant) -> Vigilance {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        faults::pass(Point::Watchdog);
        let Some(mut state) = self.look_after_the_stuck(now) else { return Vigilance::Full };
        let unattended =
            state.poller.is_some() && self.seen_epoch.swap(state.poll_epoch, Ordering::Relaxed) == state.poll_epoch;
        let mut expired = 0;
        if now.saturating_duration_since(state.last_expiry) >= EXPIRY_INTERVAL {
            state.last_expiry = now;
            let Expired { executions, overdue, unread } = state.hub.expire(now);
            expired = executions.len();
            state.chores.ended.extend(executions);
            state.chores.unread.extend(unread);
            state.errands.extend(overdue.into_iter().map(Errand::Overdue));
            state.chores.tidy = self.has_to_tidy();
            let held = self.memory.held() + self.states.bytes();
            state.chores.trim |= state.burst.is_over(held, self.memory.turned_over(), now);
        }
        if state.hub.crew.holds_back(now) {
            let unwritten = state.connections.values().filter(|connection| connection.pending_bytes() > 0);
            let unwritten: Vec<Errand> = unwritten.map(|connection| Errand::Flush(connection.session)).collect();
            state.errands.extend(unwritten);
        }
        let State { hub, errands, .. } = &mut *state;
        errands.extend(hub.crew.logs_due(now).map(|(run, it, logs)| Errand::Logs {
            connection: it.connection.clone(),
            id: it.id,
            run,
            logs: logs.clone(),
        }));
        state.hub.have_give_way();
        let beside = state.hub.end_trial(TRIAL, now).is_some_and(|run| state.hub.make_way(run) == Way::Beside);
        let lacking = state.hub.workers_lacking().min(STARTED_AT_ONCE);
        let over = Self::look_at_drain(&mut state, now);
        let errands = !state.errands.is_empty();
        // not for a job that is there at this moment: waking a second thread would cost more than the job
        let due = unattended || errands && state.poller.is_some() || state.hub.has_backlog(now, MAX_WAIT);
        if state.idle > 0 && due {
            self.work.notify_one();
        }
        if !state.chores.is_empty() || state.hub.has_to_park(now) {
            self.housework.notify_one();
        }
        let vigilance = if !state.hub.is_quiet() || state.drain.is_some() || !state.leaving.is_empty() {
            Vigilance::Full
        } else if state.hub.suspended() > 0 || errands {
            Vigilance::Slow
        } else {
            Vigilance::None
        };
        drop(state);
        for _ in 0..expired {
            self.runtime.observer.record_suspension(SuspensionEvent::Expired);
        }
        if errands {
            self.wake_poller();
        }
        for _ in 0..lacking {
            if let Err(e) = self.start_worker() {
                log::warn!("there are fewer workers than there should be: cannot start another one: {e}");
                break;
            }
        }
        if beside {
            self.work.notify_one();
        }
        if over {
            self.exit.announce(ExitCode::Ok);
        }
        if self.has_to_tidy() { vigilance.max(Vigilance::Slow) } else { vigilance }
    }

    pub(super) fn has_to_tidy(&self) -> bool {
        self.runtime.pools().has_surplus() || self.arenas.is_waiting()
    }
}
