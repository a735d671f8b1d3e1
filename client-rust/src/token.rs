//! Tokens by which one part of a program ends what another waits for.
//!
//! Invariants: a token that is cancelled stays so, and wakes everybody who waits for it once; who no longer waits is forgotten,
//! however long the token lives; wakers, which are a caller's code, are cloned, woken and dropped without the lock.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::slot::{lock, wake};

/// Ends runs, or says that one has ended. Clones share it; it can be used for several runs, and stays cancelled.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    wakers: HashMap<u64, Waker>,
}

impl CancelToken {
    /// Not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every run that it was given to. They fail with `CANCELLED` once the sidecar has stopped them.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut lock(&self.0.waiting).wakers);
        wakers.into_values().for_each(wake);
    }

    /// Whether it was.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Done when it is cancelled.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled { token: self.clone(), number: None }
    }
}

/// The future of [`CancelToken::cancelled`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Cancelled {
    token: CancelToken,
    /// Under which its waker is known.
    number: Option<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.token.is_cancelled() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let mut waiting = lock(&self.token.0.waiting);
        let number = self.number.unwrap_or_else(|| {
            waiting.last += 1;
            waiting.last
        });
        let before = waiting.wakers.insert(number, waker);
        drop(waiting);
        drop(before);
        self.number = Some(number);
        // Looked at again behind the registration: a cancel in between would wake nobody.
        if self.token.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        // In two statements: the waker is dropped without the lock.
        let waker = lock(&self.token.0.waiting).wakers.remove(&number);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::slot::block_on;

    #[test]
    fn everybody_who_waits_is_woken_and_who_comes_later_does_not_wait() {
        let token = CancelToken::new();
        let waiting: Vec<_> = (0..3).map(|_| token.cancelled()).collect();
        let threads: Vec<_> = waiting.into_iter().map(|cancelled| thread::spawn(move || block_on(cancelled))).collect();
        while lock(&token.0.waiting).wakers.len() < 3 {
            thread::yield_now();
        }
        assert!(!token.is_cancelled());
        token.clone().cancel();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        block_on(token.cancelled());
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        let token = CancelToken::new();
        for _ in 0..100 {
            let mut cancelled = token.cancelled();
            for _ in 0..2 {
                assert!(Pin::new(&mut cancelled).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            assert_eq!(lock(&token.0.waiting).wakers.len(), 1);
        }
        assert!(lock(&token.0.waiting).wakers.is_empty());
    }
}
