//! What a run does besides running.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use crate::extensions::Extensions;
use crate::segment::Segment;
use crate::slot::{lock, wake};

/// Called for each segment.
pub(crate) type OnSegment = Box<dyn FnMut(&Segment) + Send>;

/// How to run.
#[derive(Default)]
pub struct RunOptions {
    pub(crate) extensions: Extensions,
    pub(crate) on_segment: Option<OnSegment>,
    pub(crate) cancel: Option<CancelToken>,
}

impl RunOptions {
    /// No extensions, nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// The functions that the handler may call.
    #[must_use]
    pub fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    /// Called at once for each segment, in order, the last one included, also when the run fails. It runs where the
    /// run is polled or waited for, and must not block long.
    #[must_use]
    pub fn on_segment(mut self, callback: impl FnMut(&Segment) + Send + 'static) -> Self {
        self.on_segment = Some(Box::new(callback));
        self
    }

    /// Lets another part of the program end the run.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("extensions", &self.extensions).finish_non_exhaustive()
    }
}

/// Ends runs. Clones share it; it can be used for several runs, and stays cancelled.
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
