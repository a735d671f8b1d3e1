//! What only whoever looks after the sidecar may ask: which executions there are, and their end; and figures in long form.
//!
//! Making a list or the text of all metrics may take long, so that the housekeeper does it: no connection waits for one of
//! another. A kill is a word in the books.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{ExecutionEntry, Executions, MetricsText};
use nexus_protocol::{ErrorCode, RequestId, SidecarMessage, WireError, limits};

use super::connection::Connection;
use super::door::is_own;
use super::hub::{Cancelled, Listed, Memory, Names};
use super::refusal::{of_resource, overloaded};
use super::{Mode, Server};

/// A long text that somebody has asked for.
pub(super) struct Wanted {
    connection: Arc<Connection>,
    id: RequestId,
    text: Text,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Text {
    Executions,
    Metrics,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.connection.end_list();
    }
}

impl Server {
    /// Lets a parent through, and a peer that could as well send us signals.
    fn refuse_others(&self, connection: &Connection) -> Result<(), WireError> {
        match self.mode {
            Mode::Child => Ok(()),
            Mode::Service if connection.peer_uid().is_some_and(is_own) => Ok(()),
            Mode::Service => {
                let message = "only the sidecar's own user and root may look after it";
                Err(WireError::new(ErrorCode::PermissionDenied, message))
            }
        }
    }

    /// Has the housekeeper write a text. True: it will not, and why has been appended.
    pub(super) fn want(&self, connection: &Arc<Connection>, id: RequestId, text: Text) -> bool {
        if let (Text::Executions, Err(error)) = (text, self.refuse_others(connection)) {
            self.refuse(connection, id, error);
            return true;
        }
        if !connection.begin_list() {
            let most = limits::MAX_PENDING_LISTS as u64;
            let error = overloaded(format!("{most} lists are asked for and not answered yet"));
            self.refuse(connection, id, of_resource(error, "maxPendingLists", most, most + 1));
            return true;
        }
        let wanted = Wanted { connection: connection.clone(), id, text };
        self.leave_to_housekeeper(|chores| chores.wanted.push_back(wanted));
        false
    }

    /// For the housekeeper.
    pub(super) fn write(&self, wanted: Wanted) {
        let Wanted { connection, id, text } = &wanted;
        match text {
            Text::Executions => self.send_executions(connection, *id),
            Text::Metrics => connection.send(*id, &SidecarMessage::Metrics(MetricsText { text: &self.prometheus() })),
        }
        // it is in the buffer: nobody may take the connection for one that has been told everything before that
        let connection = connection.clone();
        drop(wanted);
        self.flush(&connection);
    }

    fn send_executions(&self, connection: &Connection, id: RequestId) {
        let (listed, total, clients) = {
            let state = self.lock();
            let (listed, total) = state.hub.list(limits::MAX_LISTED_EXECUTIONS);
            let clients: Vec<Option<Arc<Connection>>> =
                listed.iter().map(|one| state.connections.get(&one.session).cloned()).collect();
            (listed, total, clients)
        };
        let now = Instant::now();
        let executions = listed.iter().zip(&clients).map(|(one, client)| {
            // each may take as long as decoding a frame, or reading a page map
            self.keeping.begin(Instant::now());
            entry(one, client.as_deref(), now)
        });
        let executions = executions.collect();
        connection.send(id, &SidecarMessage::Executions(Executions { executions, total: total as u64 }));
    }

    pub(super) fn kill(&self, connection: &Connection, id: RequestId, execution: u64) {
        if let Err(error) = self.refuse_others(connection) {
            return self.refuse(connection, id, error);
        }
        let outcome = self.lock().hub.kill(execution);
        if !matches!(outcome, Cancelled::Nothing) {
            log::info!("execution {execution} is killed on behalf of {:?}", connection.client());
        }
        self.cancelled(connection, id, outcome);
    }

    fn refuse(&self, connection: &Connection, id: RequestId, error: WireError) {
        self.runtime.observer.record_error(error.code);
        connection.send(id, &SidecarMessage::Error(error));
    }
}

fn entry<'a>(one: &'a Listed, client: Option<&'a Connection>, now: Instant) -> ExecutionEntry<'a> {
    let (panel_id, handler_name) = match &one.names {
        Names::InFrame(frame) => {
            let labels = frame.labels();
            (labels.panel_id.as_deref(), labels.handler_name.as_deref())
        }
        Names::Known(panel_id, handler_name) => (panel_id.as_deref(), handler_name.as_deref()),
    };
    let running = one.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    ExecutionEntry {
        id: one.number,
        session: one.session.0,
        client: client.map_or("", Connection::client),
        pid: client.map_or(0, Connection::peer_pid),
        panel_id,
        handler_name,
        state: one.state,
        age_ms: now.saturating_duration_since(one.enqueued).as_millis() as u64,
        cpu_us: (one.cpu + running).as_micros() as u64,
        memory_bytes: match &one.memory {
            Memory::Unknown => None,
            Memory::Known(bytes) => Some(*bytes),
            Memory::Running(control) => control.resident_bytes(),
        },
        pending_calls: u32::try_from(one.pending_calls).unwrap_or(u32::MAX),
    }
}
