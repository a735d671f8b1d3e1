//! Requests of which a part lies in shared memory, and the one that makes it.

use nexus_protocol::message::{Arena, Execute, OpenArena};
use nexus_protocol::{SidecarMessage, WireError};

use super::Server;
use super::hub::{Job, SessionId};
use super::work::{Answering, Outcome};
use crate::budget::Charge;
use crate::execution::StateSource;
use crate::segments::Copied;

/// Private copies of what an execute has in shared memory.
pub(super) struct Shared {
    pub state: StateSource,
    /// Of the state, where that was copied: to be kept while the execution runs.
    pub charge: Option<Charge>,
    pub args: Option<Copied>,
    pub scope: Option<Copied>,
}

impl Server {
    pub(super) fn open_arena(&self, answering: Answering<'_>, job: &Job, request: OpenArena) -> Outcome {
        // for good: a segment is known to this process alone
        job.connection.mark.doubt();
        let opened = self.arenas.handle(job.session.0, request);
        self.answer(answering, opened, |opened, send| {
            let (generation, bytes) = (opened.generation, opened.bytes);
            send(SidecarMessage::Arena(Arena { generation, bytes, name: opened.name.as_deref() }));
        })
    }

    /// Copies out what the request has in shared memory, and finds its resident state.
    pub(super) fn shared(&self, session: SessionId, request: &Execute<'_>) -> Result<Shared, WireError> {
        let owner = session.0;
        let inline_state = request.state.is_some() || request.resident.is_some();
        let state = self.arenas.fetch(owner, "state", request.regions.state.as_ref(), inline_state)?;
        let (state, charge) = match (state, request.resident) {
            (Some(state), _) => {
                let (state, charge) = state.split();
                (StateSource::Read(state), Some(charge))
            }
            (None, Some(resident)) => (StateSource::Resident(self.states.find(owner, resident.id)?), None),
            (None, None) => (StateSource::Request, None),
        };
        let args = self.arenas.fetch(owner, "args", request.regions.args.as_ref(), request.args.is_some())?;
        let scope = self.arenas.fetch(owner, "scope", request.regions.scope.as_ref(), request.scope.is_some())?;
        Ok(Shared { state, charge, args, scope })
    }
}
