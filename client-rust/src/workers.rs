//! Threads for extension functions that block: made on demand, bounded, gone when idle.
//!
//! Invariant: a function that was handed in runs once, and a panic in it is an answer, not the end of a thread that
//! others wait for. A function that itself waits for other functions of the same client holds a thread meanwhile.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nexus_protocol::limits::CLIENT_IDLE_THREAD_MS;

use crate::slot::lock;

type Work = Box<dyn FnOnce() + Send>;

pub(crate) struct Workers {
    state: Mutex<State>,
    more: Condvar,
    max_threads: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// `max_threads`: at least one.
    pub(crate) fn new(max_threads: usize) -> Self {
        Self { state: Mutex::default(), more: Condvar::new(), max_threads }
    }

    /// Runs `work` on one of the threads, as soon as one is free. Fails where there is none and none is to be had: the caller's own
    /// is not for work that may block.
    pub(crate) fn run(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.queue.push_back(Box::new(work));
        if state.idle < state.queue.len() && state.threads < self.max_threads {
            state.threads += 1;
            let workers = Arc::clone(self);
            let spawned = thread::Builder::new().name("nexus-extension".to_owned()).spawn(move || workers.work());
            if let Err(error) = spawned {
                // Those that are there take it.
                state.threads -= 1;
                if state.threads > 0 {
                    return Ok(());
                }
                let refused = state.queue.pop_back();
                drop(state);
                drop(refused);
                return Err(error);
            }
        }
        drop(state);
        self.more.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            while let Some(work) = state.queue.pop_front() {
                drop(state);
                // The function's own wrapper turns a panic into an answer; this keeps the count of threads right.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = lock(&self.state);
            }
            state.idle += 1;
            let (next, timeout) = self
                .more
                .wait_timeout_while(state, Duration::from_millis(CLIENT_IDLE_THREAD_MS), |state| state.queue.is_empty())
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn functions_run_at_the_same_time_and_a_panic_harms_nobody() {
        let workers = Arc::new(Workers::new(5));
        let (to_first, first) = mpsc::channel();
        let (to_test, test) = mpsc::channel();
        workers.run(|| panic!("expected by the test")).unwrap();
        let answer = to_test.clone();
        workers.run(move || answer.send(first.recv().unwrap()).unwrap()).unwrap();
        workers.run(move || to_first.send(7).unwrap()).unwrap();
        assert_eq!(test.recv_timeout(Duration::from_secs(60)), Ok(7));
        for number in 0..100 {
            let answer = to_test.clone();
            workers.run(move || answer.send(number).unwrap()).unwrap();
        }
        let mut all: Vec<_> = (0..100).map(|_| test.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(lock(&workers.state).threads <= 5);
    }
}
