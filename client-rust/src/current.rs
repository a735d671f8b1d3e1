//! What an extension can ask about the call that it answers.
//!
//! Invariant: the call's token is cancelled once, when nobody waits for the answer any more: the call was late, the run was cancelled,
//! dropped or is over although the call was not answered. An answered call's never is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::run_options::CancelToken;
use crate::segment::Suspension;

/// Of which run calls are.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) handler_name: Option<String>,
    pub(crate) panel_id: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The extension call that is being answered, from [`Args::call`](crate::Args::call). Clones are of the same call.
///
/// ```
/// # use nexus_client::{CallError, Extensions};
/// # use std::time::Duration;
/// let extensions = Extensions::new().method("jobs", "wait", |args| {
///     while !args.call().token().is_cancelled() {
///         std::thread::sleep(Duration::from_millis(10)); // a piece of the work
///     }
///     Err::<(), _>(CallError::new("nobody waits for it any more"))
/// });
/// ```
#[derive(Clone, Debug)]
pub struct CurrentCall(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    suspension_id: String,
    extension: String,
    method: String,
    origin: Arc<Origin>,
    deadline: Option<Instant>,
    token: CancelToken,
}

impl CurrentCall {
    pub(crate) fn new(suspension: &Suspension, origin: &Arc<Origin>, deadline: Option<Instant>) -> Self {
        let Suspension { id, extension, method, .. } = suspension;
        let (suspension_id, extension, method) = (id.clone(), extension.clone(), method.clone());
        let (origin, token) = (Arc::clone(origin), CancelToken::new());
        Self(Arc::new(Inner { suspension_id, extension, method, origin, deadline, token }))
    }

    /// The suspension that the answer ends. Whoever knows it can end it; so it does not belong into logs.
    pub fn suspension_id(&self) -> &str {
        &self.0.suspension_id
    }

    /// Extension.
    pub fn extension(&self) -> &str {
        &self.0.extension
    }

    /// Method.
    pub fn method(&self) -> &str {
        &self.0.method
    }

    /// As the run was told it.
    pub fn handler_name(&self) -> Option<&str> {
        self.0.origin.handler_name.as_deref()
    }

    /// As the run was told it.
    pub fn panel_id(&self) -> Option<&str> {
        self.0.origin.panel_id.as_deref()
    }

    /// As the run was given it by [`RunRequest::label`](crate::RunRequest::label).
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.origin.labels.get(name).map(String::as_str)
    }

    /// All of them.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.0.origin.labels
    }

    /// After this the answer comes too late. None: it never does.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Is cancelled when nobody waits for the answer any more: [`CancelToken::is_cancelled`], or await
    /// [`CancelToken::cancelled`]. (The future of an `async_method` is dropped then.)
    pub fn token(&self) -> &CancelToken {
        &self.0.token
    }
}

/// A call that somebody waits for. Dropped without an answer, it says that nobody does.
pub(crate) struct Awaited(Option<CurrentCall>);

impl Awaited {
    pub(crate) fn new(call: CurrentCall) -> Self {
        Self(Some(call))
    }

    /// Nobody waits for it any more.
    pub(crate) fn given_up(self) -> Option<CurrentCall> {
        self.0.clone()
    }

    /// It has been answered.
    pub(crate) fn answered(mut self) -> Option<CurrentCall> {
        self.0.take()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call.token().cancel();
        }
    }
}
