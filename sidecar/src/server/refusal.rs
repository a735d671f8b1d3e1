//! What a request is answered with that is not run.

use std::time::Instant;

use nexus_protocol::message::Kind;
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, WireError, limits};

use super::Server;
use super::connection::Connection;
use super::hub::{Job, Refusal, SessionId};
use super::session;
use crate::execution::{Arrival, Totals};

impl Server {
    /// Answers a job that is not run.
    pub(super) fn fail(&self, job: &Job, error: WireError) {
        self.fail_request(&job.connection, job.id, job.kind, job.enqueued, error);
    }

    /// Answers a request that is not run, in the form that its kind has. `since`: when it came.
    pub(super) fn fail_request(
        &self,
        connection: &Connection,
        id: RequestId,
        kind: Kind,
        since: Instant,
        error: WireError,
    ) {
        self.runtime.observer.record_error(error.code);
        match kind {
            Kind::Execute | Kind::Resume => {
                let arrival = Arrival { since, waited: since.elapsed() };
                let report = Totals::begun(arrival).failure(error);
                connection.append_answer(|out, max| report.encode(id, max, out));
            }
            _ => connection.send_answer(id, &SidecarMessage::Error(error)),
        }
    }

    /// As `answer_unrun`, for a job that nobody needs any more.
    pub(super) fn answer_last(&self, job: Job, error: WireError) -> SessionId {
        let session = self.answer_unrun(&job, error);
        self.let_go(job);
        session
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
        Refusal::Overloaded(full) => full.overloaded(format!("the sidecar has all the work that it takes: {full}")),
        Refusal::Draining => {
            overloaded("the sidecar is draining: it is about to end".into()).with_context_text("reason", "draining")
        }
    }
}

/// The connection has a place for looking after the sidecar only.
pub(super) fn no_place_for_work() -> WireError {
    let most = limits::MAX_CONNECTIONS as u64;
    let error =
        overloaded("all places are taken but those for looking after the sidecar, which are not for work".into());
    of_resource(error, "maxConnections", most, most + 1)
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
