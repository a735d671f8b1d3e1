//! Sources whose bytecode is to be kept for everybody: what workers with clients hand over, until a worker without any has compiled it.
//!
//! It only saves time at the next start: what does not fit is forgotten, and nothing here delays a request.
//!
//! Invariant: what is kept is what that worker has made of the source; nobody else's word on bytecode is taken.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::message::SuspendMode;

use crate::cache::HandlerDigest;

/// As many as the disk has room for in its queue.
const MAX_QUEUED: usize = 1024;
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// One source.
#[derive(Debug)]
pub struct Job {
    pub digest: HandlerDigest,
    pub mode: Option<SuspendMode>,
    pub source: String,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Job>,
    bytes: usize,
    /// One was taken and is not done.
    at_work: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Compilations {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Compilations {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in, or forgets it.
    pub fn add(&self, engine: &[u8; 32], mode: Option<SuspendMode>, source: String) {
        // the digest is not taken from whoever hands it over
        let digest = HandlerDigest::forced(engine, mode, &source);
        let mut inner = self.lock();
        let fits = inner.queue.len() < MAX_QUEUED && inner.bytes + source.len() <= MAX_QUEUED_BYTES;
        if inner.closed || !fits || inner.queue.iter().any(|job| job.digest == digest) {
            return;
        }
        inner.bytes += source.len();
        inner.queue.push_back(Job { digest, mode, source });
        drop(inner);
        self.changed.notify_all();
    }

    /// The next one, when there is one. Whoever takes it says when it is done. None: nothing is compiled any more.
    pub fn take(&self) -> Option<Job> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            if let Some(job) = inner.queue.pop_front() {
                inner.bytes -= job.source.len();
                inner.at_work = true;
                return Some(job);
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub fn done(&self) {
        self.lock().at_work = false;
        self.changed.notify_all();
    }

    /// Waits until nothing is to be done, no longer than that.
    pub fn settle(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let left = until.saturating_duration_since(Instant::now());
        let busy = |inner: &mut Inner| !inner.closed && (inner.at_work || !inner.queue.is_empty());
        let _ = self.changed.wait_timeout_while(self.lock(), left, busy);
    }

    /// From here on nothing is compiled.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.queue.clear();
        inner.bytes = 0;
        drop(inner);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_over_is_bounded_and_each_source_is_there_once() {
        let (all, engine) = (Compilations::default(), [0; 32]);
        for _ in 0..3 {
            all.add(&engine, None, "return 1".into());
        }
        let job = all.take().unwrap();
        assert_eq!(job.digest, HandlerDigest::new(&engine, "return 1"));
        assert!(all.lock().queue.is_empty() && all.lock().bytes == 0);
        for n in 0..2 * MAX_QUEUED {
            all.add(&engine, None, format!("return {n}"));
        }
        assert_eq!(all.lock().queue.len(), MAX_QUEUED);
        let large = Compilations::default();
        for n in 0..40 {
            large.add(&engine, None, format!("return {n}{}", " ".repeat(1 << 20)));
        }
        assert!(large.lock().bytes <= MAX_QUEUED_BYTES && large.lock().queue.len() > 30);
        large.close();
        assert!(large.take().is_none());
        large.add(&engine, None, "return 1".into());
        assert!(large.lock().queue.is_empty());
        large.settle(Duration::from_secs(3600));
    }
}
