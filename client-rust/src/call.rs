//! A request that is under way.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::Error;
use crate::run_options::CancelToken;
use crate::slot::block_on;

/// A request that is under way: a future for any executor, or [`wait`](Self::wait). Dropping it cancels what it started.
///
/// ```no_run
/// # use nexus_client::{CancelToken, Client, Error};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let first = client.execute("return 1").start(); // sent now
/// let second = client.execute("return 2").start(); // and so is this one
/// let token = CancelToken::new(); // some other part of the program has a clone of it
/// let third = client.execute("for (;;);").start().cancel_on(&token);
/// assert_eq!(second.await?.value::<u32>()?, 2);
/// assert_eq!(first.await?.value::<u32>()?, 1);
/// token.cancel();
/// assert!(matches!(third.await, Err(Error::Cancelled)));
/// # Ok(())
/// # }
/// ```
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

    /// Ends the call when the token is cancelled: it then fails with [`Error::Cancelled`], at once, and what it started is
    /// cancelled. (A run takes its token by [`RunRequest::cancel`](crate::RunRequest::cancel), and waits until it has
    /// ended.)
    pub fn cancel_on(self, token: &CancelToken) -> Self
    where
        T: Send + 'static,
    {
        let token = token.clone();
        let mut call = Some(self);
        Self::new(poll_fn(move |context| {
            let Some(under_way) = &mut call else { return Poll::Pending };
            let polled = Pin::new(under_way).poll(context);
            if polled.is_pending() && token.poll(context) {
                // Dropped now, not when the caller gets round to it.
                call = None;
                return Poll::Ready(Err(Error::Cancelled));
            }
            polled
        }))
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
