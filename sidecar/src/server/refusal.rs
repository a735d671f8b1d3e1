//! What a request is answered with that is not run.

use nexus_protocol::message::Kind;
use nexus_protocol::{ErrorCode, SidecarMessage, WireError, limits};

use super::Server;
use super::hub::{Job, Refusal, SessionId};
use super::session;
use crate::execution::{Arrival, Totals};

impl Server {
    /// Answers a job that is not run.
    pub(super) fn fail(&self, job: &Job, error: WireError) {
        let connection = &job.connection;
        self.runtime.observer.record_error(error.code);
        match job.kind {
            Kind::Execute | Kind::Resume => {
                let arrival = Arrival { since: job.enqueued, waited: job.enqueued.elapsed() };
                let report = Totals::begun(arrival).failure(error);
                connection.append(|out, max| report.encode(job.id, max, out));
            }
            _ => connection.send(job.id, &SidecarMessage::Error(error)),
        }
    }

    /// Answers a job that was taken out of the queue, on its own connection, and says which that is.
    pub(super) fn answer_unrun(&self, job: &Job, error: WireError) -> SessionId {
        self.lock().hub.answer_unrun(job);
        self.fail(job, error);
        job.session
    }
}

/// What a request is answered with that was not taken.
pub(super) fn refusal(refused: &Refusal) -> WireError {
    match refused {
        Refusal::DuplicateId => session::protocol_error("the id is in use".into()),
        Refusal::Overloaded { resource, limit, count } => {
            let error = overloaded(format!("the sidecar has all the work that it takes: {resource} is {limit}"));
            of_resource(error, resource, *limit as u64, *count as u64)
        }
        Refusal::Draining => {
            overloaded("the sidecar is draining: it is about to end".into()).with_context_text("reason", "draining")
        }
    }
}

pub(super) fn overloaded(message: String) -> WireError {
    WireError::new(ErrorCode::Overloaded, message).with_context_number("retryAfterMs", limits::RETRY_AFTER_MS)
}

pub(super) fn of_resource(error: WireError, resource: &str, limit: u64, count: u64) -> WireError {
    error
        .with_context_text("resource", resource)
        .with_context_number("limit", limit)
        .with_context_number("count", count)
}
