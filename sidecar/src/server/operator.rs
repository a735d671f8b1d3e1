//! What whoever looks after the sidecar asks: which executions there are, and to end one. No value of a handler is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_protocol::message::{ClientMessage, ExecutionEntry, Executions};
use nexus_protocol::{ErrorCode, OwnedFrame, RequestId, SidecarMessage, WireError, decode_client, limits};
use nix::unistd::geteuid;

use super::connection::Connection;
use super::hub::{Cancelled, Listed, Memory, Names};
use super::{Mode, Server};

const ROOT: u32 = 0;

impl Server {
    /// Lets a parent through, and a peer that could as well send us signals.
    fn refuse_others(&self, connection: &Connection) -> Result<(), WireError> {
        let ours = |uid| uid == geteuid().as_raw() || uid == ROOT;
        match self.mode {
            Mode::Child => Ok(()),
            Mode::Service if connection.peer_uid().is_some_and(ours) => Ok(()),
            Mode::Service => {
                let message = "only the sidecar's own user and root may look after it";
                Err(WireError::new(ErrorCode::PermissionDenied, message))
            }
        }
    }

    pub(super) fn executions(&self, connection: &Connection, id: RequestId) {
        if let Err(error) = self.refuse_others(connection) {
            return self.refuse(connection, id, error);
        }
        let (listed, total, clients) = {
            let state = self.lock();
            let (listed, total) = state.hub.list(limits::MAX_LISTED_EXECUTIONS);
            let clients: Vec<Option<Arc<Connection>>> =
                listed.iter().map(|one| state.connections.get(&one.session).cloned()).collect();
            (listed, total, clients)
        };
        let now = Instant::now();
        let executions = listed.iter().zip(&clients).map(|(one, client)| entry(one, client.as_deref(), now)).collect();
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
        Names::InFrame(frame) => names_in(frame),
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

/// Read only when somebody asks; a frame that makes no sense has no names.
fn names_in(frame: &OwnedFrame) -> (Option<&str>, Option<&str>) {
    match decode_client(frame).map(|envelope| envelope.message) {
        Ok(ClientMessage::Execute(execute)) => (execute.panel_id, execute.handler_name),
        _ => (None, None),
    }
}
