//! What is there in a sidecar, for whoever looks after it.

use std::time::Duration;

use nexus_protocol::message;

use crate::told::ExecutionState;

/// One execution. No source, state or value is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutionInfo {
    /// For `Client::kill_execution`.
    pub id: u64,
    /// The connection that it came by.
    pub session: u64,
    /// As that client calls itself.
    pub client: String,
    /// That client's process when it connected.
    pub pid: u32,
    /// As the client named it.
    pub panel_id: Option<String>,
    /// As the client named it.
    pub handler_name: Option<String>,
    /// What it does.
    pub state: ExecutionState,
    /// Since it arrived.
    pub age: Duration,
    /// The segment that runs included.
    pub cpu: Duration,
    /// Of its instance while it runs, of its values while it is suspended.
    pub memory_bytes: Option<u64>,
    /// Extension calls that it waits for.
    pub pending_calls: u32,
}

impl From<&message::ExecutionEntry<'_>> for ExecutionInfo {
    fn from(entry: &message::ExecutionEntry<'_>) -> Self {
        Self {
            id: entry.id,
            session: entry.session,
            client: entry.client.to_owned(),
            pid: entry.pid,
            panel_id: entry.panel_id.map(str::to_owned),
            handler_name: entry.handler_name.map(str::to_owned),
            state: ExecutionState::of(entry.state),
            age: Duration::from_millis(entry.age_ms),
            cpu: Duration::from_micros(entry.cpu_us),
            memory_bytes: entry.memory_bytes,
            pending_calls: entry.pending_calls,
        }
    }
}
