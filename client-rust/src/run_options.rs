//! What a run does besides running.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::current::CurrentCall;
use crate::extensions::{CallError, Extensions};
use crate::segment::Segment;
use crate::slot::{lock, wake};

/// Called for each segment.
pub(crate) type OnSegment = Box<dyn FnMut(&Segment) + Send>;
/// Called for each error of an extension.
pub(crate) type OnExtensionError = Box<dyn FnMut(CallError, &CurrentCall) -> CallError + Send>;

/// How to run.
#[derive(Default)]
pub(crate) struct RunOptions {
    pub(crate) extensions: Extensions,
    pub(crate) on_segment: Option<OnSegment>,
    pub(crate) on_extension_error: Option<OnExtensionError>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) cancel: Option<CancelToken>,
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("extensions", &self.extensions).finish_non_exhaustive()
    }
}

/// Ends runs, or says that one has ended. Clones share it; it can be used for several runs, and stays cancelled.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl CancelToken {
    /// Not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every run that it was given to. They fail with `CANCELLED` once the sidecar has stopped them.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut *lock(&self.0.wakers));
        wakers.into_iter().for_each(wake);
    }

    /// Whether it was.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Done when it is cancelled.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let token = self.clone();
        poll_fn(move |context| if token.poll(context) { Poll::Ready(()) } else { Poll::Pending })
    }

    /// Whether it was; if not, the task is woken when it is.
    pub(crate) fn poll(&self, context: &Context<'_>) -> bool {
        let is_known = || lock(&self.0.wakers).iter().any(|waker| waker.will_wake(context.waker()));
        if !self.is_cancelled() && !is_known() {
            // A caller's waker is cloned without the lock.
            let waker = context.waker().clone();
            lock(&self.0.wakers).push(waker);
        }
        // Looked at again behind the registration: a cancel in between would wake nobody.
        self.is_cancelled()
    }
}
