//! States that stay with the sidecar (SPEC 6): left there once, then used by handle, so that an execution costs what the
//! keys cost that it touches.
//!
//! Invariant: a handle belongs to the connection that it was made on. When that has ended the state is gone with it, and
//! every use of the handle fails with [`Error::StateGone`]. The state goes when its last handle is dropped.

use std::sync::Arc;

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{CreateState, DisposeState, PatchState, Regions, Resident, SnapshotState};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::Call;
use crate::client::UNEXPECTED;
use crate::error::Error;
use crate::link::{Answer, Link, Pending};
use crate::payload::{Payload, PayloadError};

/// A resident state. Clones are handles of the same one.
///
/// ```no_run
/// # use nexus_client::{Client, Context, SpawnOptions, StatePatch};
/// # fn main() -> Result<(), nexus_client::Error> {
/// let client = Client::spawn(SpawnOptions::new()).wait()?;
/// let state = client.create_state(&serde_json::json!({ "n": 1 })).wait()?;
/// let context = Context::new().resident(&state).grants(["state:read:n", "state:write:n"]);
/// client.run("$state.n += 1").context(&context).wait()?;
/// assert_eq!(state.snapshot().wait()?.decode::<serde_json::Value>()?, serde_json::json!({ "n": 2 }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ResidentState(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    id: String,
}

/// Keys to change at once. Keys are deleted first, then set.
#[derive(Clone, Debug, Default)]
#[must_use = "a patch does nothing until it is applied"]
pub struct StatePatch {
    set: Option<Payload>,
    delete: Vec<String>,
    expect_version: Option<u64>,
    /// The first value that could not be encoded.
    fault: Option<PayloadError>,
}

/// What a resident state holds at one version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StateSnapshot {
    /// Version.
    pub version: u64,
    /// A map.
    pub state: Payload,
}

/// What an execution runs on, and what it demands of it.
#[derive(Clone, Debug)]
pub(crate) struct ResidentUse {
    state: ResidentState,
    expect_version: Option<u64>,
    exclusive: bool,
}

impl ResidentState {
    pub(crate) fn create(link: &Arc<Link>, state: &Payload) -> Call<Self> {
        match link
            .send(ClientMessage::CreateState(CreateState { state: Some(state.as_bytes()), regions: Regions::NONE }))
        {
            Ok(pending) => {
                let link = Arc::clone(link);
                Call::new(async move {
                    match pending.await? {
                        Answer::StateCreated(id) => Ok(Self(Arc::new(Inner { link, id }))),
                        _ => Err(UNEXPECTED),
                    }
                })
            }
            Err(error) => Call::failed(error),
        }
    }

    /// Changes keys, all at once. The new version.
    pub fn patch(&self, patch: &StatePatch) -> Call<u64> {
        if let Some(fault) = &patch.fault {
            return Call::failed(fault.clone().into());
        }
        let message = ClientMessage::PatchState(PatchState {
            id: &self.0.id,
            set: patch.set.as_ref().map(Payload::as_bytes),
            delete: patch.delete.iter().map(String::as_str).collect(),
            expect_version: patch.expect_version,
            regions: Regions::NONE,
        });
        self.request(message, |answer| match answer {
            Answer::StatePatched(version) => Ok(version),
            _ => Err(UNEXPECTED),
        })
    }

    /// All that it holds.
    pub fn snapshot(&self) -> Call<StateSnapshot> {
        self.read(None)
    }

    /// Some keys: those that are there.
    pub fn snapshot_of(&self, keys: &[&str]) -> Call<StateSnapshot> {
        self.read(Some(keys.to_vec()))
    }

    fn read(&self, keys: Option<Vec<&str>>) -> Call<StateSnapshot> {
        let message = ClientMessage::SnapshotState(SnapshotState { id: &self.0.id, keys, regions: Regions::NONE });
        self.request(message, |answer| match answer {
            Answer::StateSnapshot(version, state) => Ok(StateSnapshot { version, state: Payload::from_bytes(state) }),
            _ => Err(UNEXPECTED),
        })
    }

    /// Lets the state go now. Whether there was one still. Executions that run on it go on with what they see.
    pub fn dispose(&self) -> Call<bool> {
        self.request(ClientMessage::DisposeState(DisposeState { id: &self.0.id }), |answer| match answer {
            Answer::StateDisposed(disposed) => Ok(disposed),
            _ => Err(UNEXPECTED),
        })
    }

    fn request<T: Send + 'static>(
        &self,
        message: ClientMessage<'_>,
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + 'static,
    ) -> Call<T> {
        if self.0.link.is_closed() {
            return Call::failed(Error::StateGone);
        }
        match self.0.link.send(message) {
            Ok(pending) => Call::new(async move { read(pending.await?) }),
            Err(error) => Call::failed(error),
        }
    }
}

impl std::fmt::Debug for ResidentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ResidentState").field(&self.0.id).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // An error means that the connection is gone, and the state with it.
        let sent = self.link.send(ClientMessage::DisposeState(DisposeState { id: &self.id }));
        sent.map(Pending::forget).unwrap_or_default();
    }
}

impl StatePatch {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A map or struct: keys and their new values.
    pub fn set<T: Serialize + ?Sized>(mut self, values: &T) -> Self {
        match Payload::encode(values) {
            Ok(payload) => self.set = Some(payload),
            Err(error) => drop(self.fault.get_or_insert(error)),
        }
        self
    }

    /// The same, as MessagePack.
    pub fn set_payload(mut self, values: Payload) -> Self {
        self.set = Some(values);
        self
    }

    /// Adds a key to delete.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.delete.push(key.into());
        self
    }

    /// Refuses the patch unless the state has this version.
    pub fn expect_version(mut self, version: u64) -> Self {
        self.expect_version = Some(version);
        self
    }
}

impl StateSnapshot {
    /// What it holds, as a type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        self.state.decode()
    }
}

impl ResidentUse {
    pub(crate) fn new(state: &ResidentState, expect_version: Option<u64>, exclusive: bool) -> Self {
        Self { state: state.clone(), expect_version, exclusive }
    }

    /// As a request on `link` says it.
    pub(crate) fn on(&self, link: &Arc<Link>) -> Result<Resident<'_>, Error> {
        if self.state.0.link.is_closed() {
            return Err(Error::StateGone);
        }
        if !Arc::ptr_eq(&self.state.0.link, link) {
            return Err(Error::ForeignState);
        }
        let Self { expect_version, exclusive, .. } = *self;
        Ok(Resident { id: &self.state.0.id, expect_version, exclusive })
    }
}
