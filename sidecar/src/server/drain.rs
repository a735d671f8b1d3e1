//! How a server ends: no new work, then the end of what is under way, then cancellation, and an answer to everything.
//!
//! ```text
//!   drain --> Finishing --quiet---------------------------> Saying --said, or its time is over--> end
//!                 \--drainTimeoutMs--> Cancelling --quiet,--^
//!                                                  or a moment later
//! ```
//! Quiet means that nothing is queued or running, that no worker holds an answer back, and that every connection has taken
//! what was written to it. Whoever asked with a signal waits for suspended executions as well: their clients may resume.
//! From the first word to the end it takes `drainTimeoutMs` and a second at the most, however slowly anybody reads. All of
//! this is decided by the watchdog, which says and writes nothing itself: see `errand`.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use nexus_protocol::{RequestId, limits};

use super::connection::Connection;
use super::errand::Errand;
use super::hub::Closed;
use super::state::State;
use super::{Mode, Server};

/// How long one that asked for the end may take to read that all is done.
const FAREWELL: Duration = Duration::from_secs(1);

/// A drain that goes on.
pub(super) struct Drain {
    stage: Stage,
    /// When the stage is over.
    until: Instant,
    /// When all is over, whatever is left.
    end: Instant,
    /// To be told when everything is done.
    asked_by: Vec<(Arc<Connection>, RequestId)>,
    /// Suspended executions are waited for as well.
    patient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Finishing,
    Cancelling,
    Saying,
}

/// A connection of a service that asked for its end, through the same stages: it is told `done` once its other requests are
/// answered, and closed when it has taken that.
pub(super) struct Leaving {
    connection: Arc<Connection>,
    id: RequestId,
    stage: Stage,
    /// When the stage is over.
    until: Instant,
}

impl Server {
    /// Asks for the end.
    pub fn drain(&self) {
        self.begin_drain(self.lock(), None);
        self.wake_poller();
    }

    pub fn is_draining(&self) -> bool {
        self.lock().drain.is_some()
    }

    fn begin_drain(&self, mut state: MutexGuard<'_, State>, asked_by: Option<(Arc<Connection>, RequestId)>) {
        state.hub.drain();
        let patient = asked_by.is_none();
        match &mut state.drain {
            // its time runs already
            Some(drain) => {
                drain.patient &= patient;
                drain.asked_by.extend(asked_by);
            }
            None => {
                let until = Instant::now() + self.drain_timeout();
                let end = until + Duration::from_millis(limits::DRAIN_CANCEL_GRACE_MS + limits::DRAIN_FAREWELL_MS);
                let asked_by = Vec::from_iter(asked_by);
                state.drain = Some(Drain { stage: Stage::Finishing, until, end, asked_by, patient });
            }
        }
        // the watchdog may wait for the books while it has the lock that this needs
        drop(state);
        self.runtime.engine().watchdog().notify();
    }

    fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.runtime.config.drain_timeout_ms)
    }

    /// The request `shutdown`: the whole sidecar of a child, one connection of a service.
    pub(super) fn shutdown(&self, connection: &Arc<Connection>, id: RequestId) -> bool {
        // for good: there is an answer to come, and then the end
        connection.mark.doubt();
        let mut state = self.lock();
        match self.mode {
            Mode::Child => self.begin_drain(state, Some((connection.clone(), id))),
            Mode::Service => {
                let until = Instant::now() + self.drain_timeout();
                state.hub.leave(connection.session);
                state.leaving.push(Leaving { connection: connection.clone(), id, stage: Stage::Finishing, until });
                drop(state);
                self.runtime.engine().watchdog().notify();
            }
        }
        false
    }

    /// One look, with the lock held. True: the process is to end.
    pub(super) fn look_at_drain(state: &mut State, now: Instant) -> bool {
        state.look_at_leaving(now);
        let quiet = state.is_quiet();
        let Some(mut drain) = state.drain.take() else { return false };
        let waits = drain.patient && drain.stage == Stage::Finishing && state.hub.suspended() > 0;
        let done = quiet && !waits;
        if !done && now < drain.until {
            state.drain = Some(drain);
            return false;
        }
        if !done && drain.stage == Stage::Finishing {
            log::warn!("the time for finishing is over: what is under way is cancelled");
            let Closed { executions, jobs } = state.hub.cancel_all();
            state.errands.extend(jobs.into_iter().map(Errand::Unrun));
            state.chores.ended.extend(executions);
            drain.stage = Stage::Cancelling;
            drain.until = now + Duration::from_millis(limits::DRAIN_CANCEL_GRACE_MS);
        } else if !drain.asked_by.is_empty() {
            state.errands.extend(drain.asked_by.drain(..).map(|(connection, id)| Errand::Done(connection, id)));
            drain.stage = Stage::Saying;
            drain.until = now + FAREWELL;
        } else {
            return true;
        }
        drain.until = drain.until.min(drain.end);
        state.drain = Some(drain);
        false
    }
}

impl State {
    /// Nothing is to be done, and everybody has been told everything.
    fn is_quiet(&self) -> bool {
        self.hub.is_quiet()
            // what was found is handled, and what that takes out of the books is answered
            && !self.polling.is_busy()
            && self.holding == 0
            && self.stand_ins == 0
            && self.settle_later.is_empty()
            && self.has_said_all()
            && self.connections.values().all(|c| c.pending_bytes() == 0 && !c.waits_for_list())
    }

    fn has_said_all(&self) -> bool {
        self.errands.is_empty() && !self.on_errands
    }

    fn look_at_leaving(&mut self, now: Instant) {
        let said_all = self.has_said_all();
        let Self { hub, leaving, errands, chores, .. } = self;
        leaving.retain_mut(|one| {
            let (over, session) = (now >= one.until, one.connection.session);
            if one.stage == Stage::Saying {
                let goes = over || said_all && one.connection.pending_bytes() == 0;
                if goes {
                    errands.push(Errand::Close(session));
                }
                return !goes;
            }
            let answered = hub.in_flight(session) == 0 && !hub.crew.is_answering(session);
            if answered && !one.connection.waits_for_list() || over && one.stage == Stage::Cancelling {
                errands.push(Errand::Done(one.connection.clone(), one.id));
                (one.stage, one.until) = (Stage::Saying, now + FAREWELL);
            } else if over {
                let Closed { executions, jobs } = hub.cancel_session(session);
                errands.extend(jobs.into_iter().map(Errand::Cancelled));
                chores.ended.extend(executions);
                one.stage = Stage::Cancelling;
                one.until = now + Duration::from_millis(limits::DRAIN_CANCEL_GRACE_MS);
            }
            true
        });
    }
}
