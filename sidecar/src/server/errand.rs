//! What the watchdog has found out and a connection is to hear: said by whoever has the poller.
//!
//! The buffer of a connection may be locked by a worker that writes an answer, or that is stuck in one. The watchdog must not
//! wait for it, so it only puts an errand into the books; the thread that looks after the connections anyway runs it. When that
//! thread gets stuck, the watchdog notices it like any other.

use std::sync::Arc;
use std::time::Instant;

use nexus_protocol::limits::MAX_RETIRED_PER_CONNECTION;
use nexus_protocol::message::{Done, LogsSoFar};
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, WireError};

use super::Server;
use super::connection::Connection;
use super::crew::RunId;
use super::hub::{Due, Job, Refusal, SessionId};
use super::poller::Poller;
use super::refusal::{of_resource, overloaded, refusal};
use crate::engine::live_logs::SegmentLogs;
use crate::execution;

/// See the module.
pub(super) enum Errand {
    /// It has waited for longer than it may.
    Overdue(Job),
    /// The end of the server came before its turn.
    Unrun(Job),
    /// The end of its connection came before its turn.
    Cancelled(Job),
    /// All that a `shutdown` has waited for is done.
    Done(Arc<Connection>, RequestId),
    /// A connection that has been told everything.
    Close(SessionId),
    /// A connection whose last word is in its buffer.
    Dismiss(SessionId),
    /// A connection with answers that are not written yet.
    Flush(SessionId),
    /// A handler has logged something, and its client wants to hear it while it runs.
    Logs { connection: Arc<Connection>, id: RequestId, run: RunId, logs: SegmentLogs },
    /// A connection that has cost more threads than one may.
    Expel(Arc<Connection>),
}

impl Errand {
    /// The request that waits for an answer.
    pub fn job(&self) -> Option<&Job> {
        match self {
            Self::Overdue(job) | Self::Unrun(job) | Self::Cancelled(job) => Some(job),
            Self::Done(..)
            | Self::Close(_)
            | Self::Dismiss(_)
            | Self::Flush(_)
            | Self::Logs { .. }
            | Self::Expel(_) => None,
        }
    }
}

impl Server {
    /// `touched`: to which connections something was appended.
    pub(super) fn run_errand(&self, poller: &mut Poller, errand: Errand, touched: &mut Vec<SessionId>) {
        let session = match errand {
            Errand::Overdue(job) => {
                let waited = job.enqueued.elapsed();
                let error = match job.due {
                    Due::At(due) if due <= Instant::now() => {
                        let timeout = due.saturating_duration_since(job.enqueued);
                        execution::waited_too_long(timeout, waited)
                    }
                    _ => {
                        let waited = waited.as_millis() as u64;
                        let error = overloaded(format!("the request waited {waited} ms for an instance"));
                        of_resource(error, "maxQueueMs", self.runtime.config.max_queue_ms, waited)
                    }
                };
                self.answer_last(job, error)
            }
            Errand::Unrun(job) => self.answer_last(job, refusal(&Refusal::Draining)),
            Errand::Cancelled(job) => self.answer_last(job, execution::cancelled()),
            Errand::Expel(connection) => {
                let message = "requests of this connection have cost the sidecar several threads; it is closed";
                log::error!("session {} is closed: {message}", connection.session.0);
                let error = WireError::new(ErrorCode::ResourceLimit, message)
                    .with_context_text("resource", "retiredThreads")
                    .with_context_number("limit", MAX_RETIRED_PER_CONNECTION.into());
                connection.send(RequestId::CONNECTION, &SidecarMessage::Error(error));
                return self.dismissed(poller, connection.session);
            }
            Errand::Done(connection, id) => {
                connection.send(id, &SidecarMessage::Done(Done { cancelled: false }));
                connection.session
            }
            Errand::Close(session) => {
                poller.close(session);
                return self.closed(session);
            }
            Errand::Dismiss(session) => return self.dismissed(poller, session),
            Errand::Flush(session) => session,
            Errand::Logs { connection, id, run, logs } => {
                logs.tell(Instant::now(), |logs| !connection.is_over() && self.tell_logs(&connection, id, run, logs));
                connection.session
            }
        };
        if !touched.contains(&session) {
            touched.push(session);
        }
    }
}

impl Server {
    /// Not of a run that was given up: somebody else has answered it, or does so after this.
    fn tell_logs(&self, connection: &Connection, id: RequestId, run: RunId, logs: &[u8]) -> bool {
        connection.append(|out, max| {
            if self.lock().hub.crew.is_retired(run) {
                return;
            }
            if let Err(e) = SidecarMessage::Logs(LogsSoFar { logs }).encode(id, max, out.own()) {
                log::error!("cannot encode logs: {e}");
            }
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::lifecycle::Exit;
    use crate::runtime::Runtime;
    use crate::server::{Mode, Surroundings};

    #[test]
    fn the_watchdog_waits_for_nobody_who_has_the_buffer_of_a_connection() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let runtime = Arc::new(Runtime::new(Config::default()).unwrap());
        let server = Server::new(runtime, Mode::Child, Arc::new(Exit::new().unwrap()), Surroundings::alone()).unwrap();
        let connection = server.with_poller(|poller| poller.adopt(theirs)).unwrap();
        server.opened(connection.clone());
        let (locked, is_locked) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let writer = connection.clone();
        let writer = thread::spawn(move || {
            writer.append(|_, _| {
                locked.send(()).unwrap();
                let _ = released.recv();
            });
        });
        is_locked.recv().unwrap();
        // a whole drain, from its beginning to its end
        server.shutdown(&connection, RequestId(1));
        let (looked, has_looked) = mpsc::channel();
        let watchdog = server.clone();
        thread::spawn(move || {
            let start = Instant::now();
            for looks in 0..20 {
                watchdog.tick(start + looks * Duration::from_millis(400));
            }
            looked.send(()).unwrap();
        });
        has_looked.recv_timeout(Duration::from_secs(30)).expect("the watchdog waits for a writer");
        release.send(()).unwrap();
        writer.join().unwrap();
    }
}
