//! What a client does by itself, whether it starts its sidecar or connects to one that listens.

use std::time::Duration;

use nexus_protocol::limits::{
    ARENA_THRESHOLD_BYTES, CLIENT_BLOCKING_CALLS, CLIENT_HELLO_TIMEOUT_MS, CLIENT_WAITING_BYTES,
    CLIENT_WAITING_REQUESTS,
};

use crate::outbox::Bounds;
use crate::restart::RestartPolicy;

/// What a client does by itself: queueing, shared memory, restarts. For [`SpawnOptions::client`] and
/// [`Client::connect_with`].
///
/// ```no_run
/// use nexus_client::{Client, ClientOptions, RestartPolicy, SpawnOptions};
///
/// # fn main() -> Result<(), nexus_client::Error> {
/// let options = ClientOptions::new().max_waiting_requests(1_000).shared_memory(false).restart(RestartPolicy::never());
/// let spawned = Client::spawn(SpawnOptions::new().client(options)).wait()?;
/// let connected = Client::connect_with("/run/nexus/nexus.sock", options).wait()?;
/// # Ok(())
/// # }
/// ```
///
/// [`SpawnOptions::client`]: crate::SpawnOptions::client
/// [`Client::connect_with`]: crate::Client::connect_with
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "options do nothing until a client is made with them"]
pub struct ClientOptions {
    pub(crate) restart: RestartPolicy,
    shared_memory: bool,
    shared_memory_threshold_bytes: usize,
    max_waiting_requests: usize,
    max_waiting_bytes: usize,
    pub(crate) max_blocking_calls: usize,
    pub(crate) start_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            restart: RestartPolicy::default(),
            shared_memory: true,
            shared_memory_threshold_bytes: ARENA_THRESHOLD_BYTES,
            max_waiting_requests: CLIENT_WAITING_REQUESTS,
            max_waiting_bytes: CLIENT_WAITING_BYTES,
            max_blocking_calls: CLIENT_BLOCKING_CALLS,
            start_timeout: Duration::from_millis(CLIENT_HELLO_TIMEOUT_MS),
        }
    }
}

impl From<RestartPolicy> for ClientOptions {
    fn from(restart: RestartPolicy) -> Self {
        Self { restart, ..Self::default() }
    }
}

impl ClientOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// When the next sidecar is started, or connected to, after one that has ended.
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = policy;
        self
    }

    /// Whether large payloads go through shared memory where that is possible; default true. What is visible of it is the
    /// time that they take: where it is not possible, they go through the socket.
    pub fn shared_memory(mut self, enabled: bool) -> Self {
        self.shared_memory = enabled;
        self
    }

    /// The size of a single payload, in bytes, from which on it goes through shared memory; default 256 KiB. Answers do
    /// from 256 KiB on, whatever this says: their way is the sidecar's choice.
    pub fn shared_memory_threshold_bytes(mut self, bytes: usize) -> Self {
        self.shared_memory_threshold_bytes = bytes;
        self
    }

    /// Requests that may wait in the client, and calls that may wait for the next sidecar to start; default 100,000. One more
    /// call fails at once with [`Error::Overloaded`](crate::Error::Overloaded), which is retryable. Only so many are with the
    /// sidecar that each is soon begun, since its time limits run there; and a [`run`](crate::Client::run) with extensions
    /// waits until it may be suspended (`maxSuspended`). Resumes go first; pings, figures and cancels never wait.
    pub fn max_waiting_requests(mut self, requests: usize) -> Self {
        self.max_waiting_requests = requests;
        self
    }

    /// The same in bytes of encoded requests, without what lies in shared memory; default 256 MiB. A call beyond it fails
    /// with [`Error::Overloaded`](crate::Error::Overloaded), but a single one may be as large as a frame can be.
    pub fn max_waiting_bytes(mut self, bytes: usize) -> Self {
        self.max_waiting_bytes = bytes;
        self
    }

    /// Functions of [`Extensions::method`](crate::Extensions::method) that run at the same time, each on a thread of the
    /// client's; default 32, at least 1. More of them wait for a thread, in the order of their calls; none is refused.
    pub fn max_blocking_calls(mut self, calls: usize) -> Self {
        self.max_blocking_calls = calls.max(1);
        self
    }

    /// How long a start may take, from connecting to the sidecar's hello; default 20 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    pub(crate) fn waiting(&self) -> Bounds {
        Bounds { requests: self.max_waiting_requests, bytes: self.max_waiting_bytes }
    }

    /// `None`: everything goes through the socket.
    pub(crate) fn threshold(&self) -> Option<usize> {
        self.shared_memory.then_some(self.shared_memory_threshold_bytes)
    }
}
