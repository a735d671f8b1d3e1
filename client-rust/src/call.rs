//! A request that is under way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::slot::block_on;

/// A request that is under way: a future for any executor, or [`wait`](Self::wait). Dropping it cancels what it started.
#[must_use = "dropping a call cancels it; use `.await` or `.wait()`"]
pub struct Call<T>(Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>);

impl<T> Call<T> {
    pub(crate) fn new(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }

    /// A call that failed before it was sent.
    pub(crate) fn failed(error: Error) -> Self
    where
        T: Send + 'static,
    {
        Self::new(std::future::ready(Err(error)))
    }

    /// Blocks this thread until the answer is there. Not for use within an executor's thread.
    pub fn wait(self) -> Result<T, Error> {
        block_on(self.0)
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl<T> std::fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}
