//! How a server ends: no new work, then the end of what is under way, then cancellation, and an answer to everything.
//!
//! ```text
//!   drain --> Finishing --quiet--> end
//!                 \--deadline--> Cancelling --quiet, or a moment later--> end
//! ```
//! Quiet means that nothing is queued or running, that no worker holds an answer back, and that every connection has taken
//! what was written to it. Whoever asked with a signal waits for suspended executions as well: their clients may resume.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::Done;
use nexus_protocol::{RequestId, SidecarMessage, limits};

use super::connection::Connection;
use super::hub::{Job, Refusal};
use super::{Mode, Server, State};
use crate::error::ExitCode;
use crate::execution::Execution;

/// How long the one who asked may take to read that all is done.
const FAREWELL: Duration = Duration::from_secs(1);

/// A drain that goes on.
pub(super) struct Drain {
    stage: Stage,
    until: Instant,
    /// To be told when everything is done.
    asked_by: Option<(Arc<Connection>, RequestId)>,
    /// Suspended executions are waited for as well.
    patient: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Finishing,
    Cancelling,
}

/// A connection of a service that asked for its end: told `done` and closed once its other requests are answered.
pub(super) struct Leaving {
    connection: Arc<Connection>,
    id: RequestId,
    until: Instant,
}

/// What a look at the drain asks for, to be done without the lock.
#[derive(Default)]
pub(super) struct Farewell {
    end: Option<Drain>,
    unrun: Vec<Job>,
    #[allow(clippy::vec_box, reason = "they are boxed where they are kept")]
    dropped: Vec<Box<Execution>>,
    left: Vec<Leaving>,
}

impl Server {
    /// Asks for the end.
    pub fn drain(&self) {
        self.begin_drain(&mut self.lock(), None);
        self.wake_poller();
    }

    pub fn is_draining(&self) -> bool {
        self.lock().drain.is_some()
    }

    fn begin_drain(&self, state: &mut State, asked_by: Option<(Arc<Connection>, RequestId)>) {
        state.hub.drain();
        let patient = asked_by.is_none();
        let until = Instant::now() + self.drain_timeout();
        state.drain = Some(Drain { stage: Stage::Finishing, until, asked_by, patient });
        self.runtime.engine().watchdog().notify();
    }

    fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.runtime.config.drain_timeout_ms)
    }

    /// The request `shutdown`: the whole sidecar of a child, one connection of a service.
    pub(super) fn shutdown(&self, connection: &Arc<Connection>, id: RequestId) -> bool {
        let mut state = self.lock();
        match self.mode {
            Mode::Child => self.begin_drain(&mut state, Some((connection.clone(), id))),
            Mode::Service => {
                let until = Instant::now() + self.drain_timeout();
                state.leaving.push(Leaving { connection: connection.clone(), id, until });
                self.runtime.engine().watchdog().notify();
            }
        }
        false
    }

    /// One look, with the lock held.
    pub(super) fn look_at_drain(state: &mut State, now: Instant) -> Farewell {
        let mut farewell = Farewell::default();
        let State { hub, leaving, .. } = state;
        farewell.left =
            leaving.extract_if(.., |l| hub.in_flight(l.connection.session) == 0 || now >= l.until).collect();
        let quiet = state.is_quiet();
        let Some(drain) = &mut state.drain else { return farewell };
        let waits = drain.patient && drain.stage == Stage::Finishing && state.hub.suspended() > 0;
        if quiet && !waits {
            farewell.end = state.drain.take();
        } else if now >= drain.until {
            match drain.stage {
                Stage::Finishing => {
                    drain.stage = Stage::Cancelling;
                    drain.until = now + Duration::from_millis(limits::DRAIN_CANCEL_GRACE_MS);
                    (farewell.unrun, farewell.dropped) = state.hub.cancel_all();
                    log::warn!("the time for finishing is over: what is under way is cancelled");
                }
                Stage::Cancelling => farewell.end = state.drain.take(),
            }
        }
        farewell
    }

    /// Does what the look asked for.
    pub(super) fn say(&self, farewell: Farewell) {
        self.runtime.drop_executions(farewell.dropped);
        for job in farewell.unrun {
            self.lock().hub.finish(job.session, job.id);
            self.fail(&job.connection, &job, super::refusal(&Refusal::Draining));
            self.flush(&job.connection);
        }
        for Leaving { connection, id, .. } in farewell.left {
            connection.send(id, &SidecarMessage::Done(Done { cancelled: false }));
            connection.flush();
            // the poller sees the end of the stream and frees the session
            let _ = connection.stream().shutdown(std::net::Shutdown::Both);
        }
        let Some(drain) = farewell.end else { return };
        if let Some((connection, id)) = drain.asked_by {
            connection.send(id, &SidecarMessage::Done(Done { cancelled: false }));
            let _ = connection.stream().set_write_timeout(Some(FAREWELL));
            let _ = connection.stream().set_nonblocking(false);
            connection.flush();
        }
        self.exit.announce(ExitCode::Ok);
    }
}

impl State {
    /// Nothing is to be done, and everybody has been told everything.
    fn is_quiet(&self) -> bool {
        self.hub.is_quiet()
            && self.holding == 0
            && self.settle_later.is_empty()
            && self.connections.values().all(|c| c.pending_bytes() == 0)
    }
}
