//! Requests about resident states: from the message to its answer.

use nexus_protocol::limits::FREE_BUFFER_BYTES;
use nexus_protocol::message::{
    CreateState, DisposeState, PatchState, Regions, SnapshotState, StateCreated, StateDisposed, StatePatched,
    StateSnapshot,
};
use nexus_protocol::{LargeField, Pieces, Shared, SidecarMessage, WireError, payload};

use super::Server;
use super::hub::Job;
use super::work::{Answering, Outcome};
use crate::execution;
use crate::halt::Halt;
use crate::resident::Changes;
use crate::token::{StopCause, StopToken};

/// Of a connection with states that take less than this no answer counts as large.
const LARGE_ANSWER_BYTES: u64 = 1 << 20;

/// What an answer needs beside its payload, generously.
const ANSWER_OVERHEAD_BYTES: usize = 256;

impl Server {
    pub(super) fn create_state(
        &self,
        answering: Answering<'_>,
        job: &Job,
        request: &CreateState<'_>,
        token: &StopToken,
    ) -> Outcome {
        let owner = job.session.0;
        let shared = self.arenas.fetch(owner, "state", request.regions.state.as_ref(), request.state.is_some());
        let created = shared.map_err(Halt::from).and_then(|shared| {
            self.states.create(owner, shared.as_deref().or(request.state).unwrap_or(payload::EMPTY_MAP), token)
        });
        let created = created.map_err(|halt| self.halted(job, halt));
        self.answer(answering, created, |(id, version), send| {
            send(SidecarMessage::StateCreated(StateCreated { id: &id.to_string(), version }));
        })
    }

    pub(super) fn patch_state(
        &self,
        answering: Answering<'_>,
        job: &Job,
        request: &PatchState<'_>,
        token: &StopToken,
    ) -> Outcome {
        let patched = self.states.find(job.session.0, request.id).map_err(Halt::from).and_then(|state| {
            let shared =
                self.arenas.fetch(job.session.0, "set", request.regions.set.as_ref(), request.set.is_some())?;
            let set = shared.as_deref().or(request.set).unwrap_or(payload::EMPTY_MAP);
            let changes = Changes::of_client(set, &request.delete, state.budget(), token)?;
            state.apply(changes, request.expect_version, token)
        });
        let patched = patched.map_err(|halt| self.halted(job, halt));
        self.answer(answering, patched, |version, send| {
            send(SidecarMessage::StatePatched(StatePatched { version }));
        })
    }

    pub(super) fn snapshot_state(
        &self,
        answering: Answering<'_>,
        job: &Job,
        request: &SnapshotState<'_>,
        token: &StopToken,
    ) -> Outcome {
        let max_bytes = (self.runtime.config.max_frame_bytes as usize).saturating_sub(ANSWER_OVERHEAD_BYTES);
        let connection = answering.connection;
        let found = self.states.find(job.session.0, request.id);
        let mut building = None;
        if found.as_ref().is_ok_and(|state| state.budget().used() >= LARGE_ANSWER_BYTES) {
            building = connection.begin_large();
            if building.is_none() && self.put_off(answering, job, token) {
                return Outcome::Waits;
            }
        }
        let taken = found.map_err(Halt::from).and_then(|state| {
            let snapshot = state.snapshot();
            // a large answer counts as unread before it is made, so that it can be refused
            let mut charge = None;
            let mut admit = |bytes: usize| {
                if bytes <= FREE_BUFFER_BYTES {
                    return Ok(());
                }
                let counted = connection.unread().charge(bytes as u64);
                charge =
                    Some(counted.map_err(|full| full.overloaded(format!("too many answers are not read: {full}")))?);
                Ok(())
            };
            let encoded = snapshot.encode(request.keys.as_deref(), max_bytes, &mut admit, token)?;
            Ok((snapshot.version(), encoded, charge))
        });
        let (version, state, charge) = match taken.map_err(|halt| self.halted(job, halt)) {
            Ok(taken) => taken,
            Err(error) => {
                self.answer_failure(answering, error);
                return Outcome::Answered(None);
            }
        };
        // first: once somebody else has answered, the place that was lent is the client's again
        if self.finish(answering).is_some() {
            let state_region = self.arenas.lent(job.session.0, &request.regions).put(std::iter::once(&*state));
            let message =
                StateSnapshot { version, state: None, regions: Regions { state: state_region, ..Regions::NONE } };
            let mut pieces = Pieces::new();
            if state_region.is_none() {
                pieces.push(Shared::new(state).into());
            }
            let large = [("state", LargeField::Bin(&pieces))];
            let large = if state_region.is_none() { &large[..] } else { &[] };
            // what lies in shared memory is not unread here
            connection.append_charged(charge.filter(|_| state_region.is_none()), |out, max| {
                if let Err(e) = message.encode_with(job.id, large, max, out) {
                    log::error!("cannot encode a state: {e}");
                }
            });
        }
        drop(building);
        Outcome::Answered(None)
    }

    /// Has a request wait until its connection has read more. False: it does not, and is to be answered now.
    fn put_off(&self, answering: Answering<'_>, job: &Job, token: &StopToken) -> bool {
        // one that has to end is told so when its answer would have been made
        let Some(mut state) = self.books(answering.run).filter(|_| token.check().is_ok()) else { return false };
        state.hub.put_off(job.clone(), answering.run);
        true
    }

    pub(super) fn dispose_state(&self, answering: Answering<'_>, job: &Job, request: &DisposeState<'_>) -> Outcome {
        let disposed = self.states.dispose(job.session.0, request.id);
        self.reply(answering, &SidecarMessage::StateDisposed(StateDisposed { disposed }));
        Outcome::Answered(None)
    }

    /// What a request about a state is told that did not come to its end.
    fn halted(&self, job: &Job, halt: Halt) -> WireError {
        let limit = execution::narrow_timeout(self.runtime.config.timeout_ms, None);
        halt.into_error(|cause| match cause {
            StopCause::Cancelled | StopCause::Back => execution::cancelled(),
            StopCause::Deadline => execution::of_time(
                "the state is too large for the time that there is".into(),
                limit,
                job.enqueued.elapsed(),
            ),
        })
    }

    pub(super) fn answer<T>(
        &self,
        answering: Answering<'_>,
        result: Result<T, WireError>,
        say: impl FnOnce(T, &mut dyn FnMut(SidecarMessage<'_>)),
    ) -> Outcome {
        match result {
            Ok(value) => say(value, &mut |message| self.reply(answering, &message)),
            Err(error) => self.answer_failure(answering, error),
        }
        Outcome::Answered(None)
    }
}
