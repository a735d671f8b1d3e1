//! What a look of the poller found, and what follows from it. See the rule in `poller`: nothing here takes longer than a word
//! in the books.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::limits::FREE_BUFFER_BYTES;
use nexus_protocol::message::Done;
use nexus_protocol::{RequestId, SidecarMessage, SuspensionId};

use super::connection::{self, Connection};
use super::errand::Errand;
use super::housekeeper::{Chores, Gone};
use super::hub::{Cancelled, Job, Refusal, SessionId};
use super::operator::Text;
use super::poller::{Event, Poller};
use super::refusal::{no_place_for_work, refusal};
use super::session::{self, Action};
use super::{Mode, Server};
use crate::execution::{self, Execution};
use crate::exit::ExitCode;
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
                Event::Closed(session) => self.closed(session),
                Event::Greeted(connection) => self.opened(connection),
                Event::Freed(bytes, charge) => {
                    self.leave_to_housekeeper(|chores| chores.dropped.push(Box::new((bytes, charge))));
                }
                Event::Frame(connection, action) => {
                    let session = connection.session;
                    let closes = matches!(action, Action::Close(..));
                    if self.act(&connection, action) && !touched.contains(&session) {
                        touched.push(session);
                    }
                    if closes {
                        self.dismissed(poller, session);
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
        poller.has_taken_in();
        let gone = poller.take_gone();
        if !gone.is_empty() {
            self.leave_to_housekeeper(|chores| chores.peers.extend(gone));
        }
    }

    /// The last word is in its buffer: nothing of it is worked on any more, and it is closed when that is read.
    pub(super) fn dismissed(&self, poller: &mut Poller, session: SessionId) {
        self.forget(session);
        if !poller.dismiss(session) {
            self.closed(session);
        }
    }

    /// The connection is closed.
    pub(super) fn closed(&self, session: SessionId) {
        self.forget(session);
        if self.mode == Mode::Child {
            self.exit.announce(ExitCode::Ok);
        }
    }

    /// The connection takes no part any more; what it had is freed by the housekeeper.
    fn forget(&self, session: SessionId) {
        let mut state = self.lock();
        if let Some(connection) = state.connections.remove(&session) {
            let left = state.hub.close_session(session);
            state.chores.gone.push(Gone { session, connection, left });
            self.housework.notify_one();
        }
    }

    /// Does what a frame asks for. True: something was appended to the connection.
    pub(super) fn act(&self, connection: &Arc<Connection>, action: Action) -> bool {
        match action {
            Action::Welcome => {
                self.opened(connection.clone());
                self.welcome(connection);
                // it is open, which it was not
                connection.mark.trust(1);
            }
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
            Action::Metrics(id) => return self.want(connection, id, Text::Metrics),
            Action::Executions(id) => return self.want(connection, id, Text::Executions),
            Action::Kill { id, execution } => self.kill(connection, id, execution),
            Action::Pong(id) => connection.send(id, &SidecarMessage::Pong),
            Action::Shutdown(id) => return self.shutdown(connection, id),
            Action::Overloaded { id, kind, full } => {
                connection.mark.doubt();
                self.fail_request(connection, id, kind, Instant::now(), full.of_request())
            }
            Action::Refuse(id, error) | Action::Close(id, error) => {
                self.runtime.observer.record_error(error.code);
                connection.send(id, &SidecarMessage::Error(error));
            }
        }
        true
    }
    pub(super) fn enqueue(&self, connection: &Connection, job: Job) -> bool {
        if connection.place().is_for_operator() {
            connection.mark.doubt();
            self.fail(&job, no_place_for_work());
            return true;
        }
        let refused = self.lock().hub.enqueue(job);
        match refused {
            Ok(()) => false,
            Err((job, Refusal::DuplicateId)) => {
                let message = format!("request {} is not answered yet, so its id cannot be used again", job.id.0);
                connection.send(RequestId::CONNECTION, &SidecarMessage::Error(session::protocol_error(message)));
                self.let_go(job);
                // whoever counts its requests wrongly cannot tell its answers apart
                self.dismiss(connection);
                true
            }
            Err((job, refused)) => {
                connection.mark.doubt();
                self.fail(&job, refusal(&refused));
                self.let_go(job);
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
                self.let_go(job);
            }
            Cancelled::BeingParked => self.runtime.observer.record_suspension(SuspensionEvent::Cancelled),
            Cancelled::Execution(execution) => {
                self.runtime.observer.record_suspension(SuspensionEvent::Cancelled);
                self.leave_to_housekeeper(|chores| chores.ended.push(execution));
            }
        }
        connection.send(id, &SidecarMessage::Done(Done { cancelled }));
    }

    /// An execution that nobody will resume: its instance can serve others.
    pub(super) fn retire(&self, execution: Execution) {
        self.runtime.give_back(execution.into_instance());
    }

    /// A job that is answered. To free a large frame takes its time.
    pub(super) fn let_go(&self, job: Job) {
        if job.frame.capacity_bytes() >= FREE_BUFFER_BYTES {
            self.leave_to_housekeeper(|chores: &mut Chores| chores.dropped.push(Box::new(job)));
        }
    }

    /// The last word has been said to a connection: it ends once that is read.
    pub(super) fn dismiss(&self, connection: &Connection) {
        connection.finish();
        self.lock().errands.push(Errand::Dismiss(connection.session));
        self.wake_poller();
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
