//! What a look of the poller found, and what follows from it.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::message::{Done, MetricsText};
use nexus_protocol::{RequestId, SidecarMessage, SuspensionId};

use super::connection::{self, Connection};
use super::hub::{Cancelled, Job, Refusal, SessionId};
use super::poller::{Event, Poller};
use super::refusal::refusal;
use super::session::{self, Action};
use super::{Mode, Server};
use crate::error::ExitCode;
use crate::execution::{self, Execution};
use crate::faults::{self, Point};
use crate::observe::SuspensionEvent;

impl Server {
    pub(super) fn wake_poller(&self) {
        let _ = (&self.wake).write(&[1]);
    }
    /// Handles events; the poller is ours meanwhile. Jobs are in the hub when this returns.
    pub(super) fn handle(&self, poller: &mut Poller, events: &mut Vec<Event>) {
        let (mut touched, errands, draining) = {
            let mut state = self.lock();
            state.handling_since = Some(Instant::now());
            let errands = std::mem::take(&mut state.errands);
            state.on_errands = !errands.is_empty();
            (std::mem::take(&mut state.settle_later), errands, state.drain.is_some())
        };
        faults::pass(Point::Poll);
        if draining {
            poller.stop_listening();
        }
        for event in events.drain(..) {
            match event {
                Event::Opened(connection) => self.opened(connection),
                Event::Closed(session) => self.closed(session),
                Event::Frame(connection, action) => {
                    let session = connection.session;
                    let closes = matches!(action, Action::Close(..));
                    if self.act(&connection, action) && !touched.contains(&session) {
                        touched.push(session);
                    }
                    if closes {
                        connection.flush();
                        poller.close(session);
                        self.closed(session);
                    }
                }
            }
        }
        for errand in errands {
            self.run_errand(poller, errand, &mut touched);
        }
        for session in touched {
            if !poller.settle(session) {
                self.closed(session);
            }
        }
    }

    pub(super) fn closed(&self, session: SessionId) {
        let closed = {
            let mut state = self.lock();
            state.connections.remove(&session);
            state.hub.close_session(session)
        };
        drop(closed);
        self.states.close(session.0);
        self.arenas.close(session.0);
        if self.mode == Mode::Child {
            self.exit.announce(ExitCode::Ok);
        }
    }

    /// Does what a frame asks for. True: something was appended to the connection.
    pub(super) fn act(&self, connection: &Arc<Connection>, action: Action) -> bool {
        match action {
            Action::Welcome => self.welcome(connection),
            Action::Work(job) => return self.enqueue(connection, job),
            Action::CancelRequest { id, target } => {
                let outcome = self.lock().hub.cancel_request(connection.session, target);
                self.cancelled(connection, id, outcome);
            }
            Action::CancelSuspension { id, suspension } => {
                let outcome = match suspension.parse::<SuspensionId>() {
                    Ok(suspension) => self.lock().hub.cancel_suspension(connection.session, suspension),
                    Err(_) => Cancelled::Nothing,
                };
                self.cancelled(connection, id, outcome);
            }
            Action::Stats(id) => {
                connection.send(id, &SidecarMessage::Stats(self.runtime.stats(self.load())));
            }
            Action::Metrics(id) => {
                let text = self.prometheus();
                connection.send(id, &SidecarMessage::Metrics(MetricsText { text: &text }));
            }
            Action::Executions(id) => self.executions(connection, id),
            Action::Kill { id, execution } => self.kill(connection, id, execution),
            Action::Pong(id) => connection.send(id, &SidecarMessage::Pong),
            Action::Shutdown(id) => return self.shutdown(connection, id),
            Action::Refuse(id, error) | Action::Close(id, error) => {
                self.runtime.observer.record_error(error.code);
                connection.send(id, &SidecarMessage::Error(error));
            }
        }
        true
    }
    pub(super) fn enqueue(&self, connection: &Connection, job: Job) -> bool {
        let refused = self.lock().hub.enqueue(job);
        match refused {
            Ok(()) => false,
            Err((job, Refusal::DuplicateId)) => {
                let message = format!("request {} is not answered yet, so its id cannot be used again", job.id.0);
                connection.send(RequestId::CONNECTION, &SidecarMessage::Error(session::protocol_error(message)));
                true
            }
            Err((job, refused)) => {
                self.fail(&job, refusal(&refused));
                true
            }
        }
    }

    /// Does what is left to do of a cancellation, whoever asked for it, and tells them.
    pub(super) fn cancelled(&self, connection: &Connection, id: RequestId, outcome: Cancelled) {
        let cancelled = !matches!(outcome, Cancelled::Nothing);
        match outcome {
            Cancelled::Nothing => {}
            Cancelled::Underway => self.runtime.engine().watchdog().notify(),
            Cancelled::Job(job) => {
                self.answer_unrun(&job, execution::cancelled());
                self.flush(&job.connection);
            }
            Cancelled::BeingParked => self.runtime.observer.record_suspension(SuspensionEvent::Cancelled),
            Cancelled::Execution(execution) => {
                self.runtime.observer.record_suspension(SuspensionEvent::Cancelled);
                self.retire(*execution);
            }
        }
        connection.send(id, &SidecarMessage::Done(Done { cancelled }));
    }

    /// An execution that nobody will resume: its instance can serve others.
    pub(super) fn retire(&self, execution: Execution) {
        self.runtime.give_back(execution.into_instance());
    }

    /// Writes out; what the socket does not take is left to the poller.
    pub(super) fn flush(&self, connection: &Connection) {
        match connection.flush() {
            connection::Flushed::All => {}
            connection::Flushed::Blocked => {
                // only the poller may change what epoll watches; it settles every connection that it is woken for
                self.lock().settle_later.push(connection.session);
                self.wake_poller();
            }
            connection::Flushed::Broken => {
                let _ = connection.stream().shutdown(std::net::Shutdown::Both);
            }
        }
    }
}
