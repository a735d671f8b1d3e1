//! How a client comes to its first sidecar.
//!
//! Invariant: a start that nobody waits for any more ends, and so does the sidecar that came of it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use super::{Client, Inner};
use crate::attempt::Attempt;
use crate::call::Call;
use crate::error::{Error, StartError};
use crate::options::ClientOptions;
use crate::session::{Origin, Sessions};
use crate::slot::Slot;
use crate::spawn::SpawnOptions;
use crate::workers::Workers;

impl Client {
    /// Starts a sidecar as a child of this process. Done when it is ready; the start begins now, polled or not, on a thread of its
    /// own, and ends when the call is dropped.
    pub fn spawn(options: SpawnOptions) -> Call<Self> {
        let client = options.client_options();
        Self::start(Origin::Spawn(Box::new(options)), client)
    }

    /// Connects to a sidecar that listens on a socket; connects again when the connection has ended. As [`spawn`](Self::spawn) it
    /// begins now.
    pub fn connect(path: impl AsRef<Path>) -> Call<Self> {
        Self::connect_with(path, ClientOptions::default())
    }

    /// [`connect`](Self::connect) with options, or only a [`RestartPolicy`](crate::RestartPolicy).
    pub fn connect_with(path: impl AsRef<Path>, options: impl Into<ClientOptions>) -> Call<Self> {
        Self::start(Origin::Connect(path.as_ref().to_owned()), options.into())
    }

    fn start(origin: Origin, options: ClientOptions) -> Call<Self> {
        let starting = Starting { attempt: Arc::default(), slot: Slot::new() };
        let (attempt, slot) = (Arc::clone(&starting.attempt), Arc::clone(&starting.slot));
        let start = move || {
            let started = Sessions::start(origin, options, &attempt).map(|sessions| {
                let workers = Arc::new(Workers::new(options.max_blocking_calls));
                Self(Arc::new(Inner { sessions, workers, held: Arc::default() }))
            });
            // One that nobody waits for any more ends again.
            drop(slot.fill(started));
        };
        match thread::Builder::new().name("nexus-start".to_owned()).spawn(start) {
            Ok(_) => Call::new(starting),
            Err(source) => Call::failed(StartError::Spawn { path: "a thread".into(), source }.into()),
        }
    }
}

/// The first start, until somebody has taken what came of it.
struct Starting {
    attempt: Arc<Attempt>,
    slot: Arc<Slot<Result<Client, Error>>>,
}

impl Future for Starting {
    type Output = Result<Client, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.slot.poll(context)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.attempt.end();
        drop(self.slot.abandon());
    }
}
