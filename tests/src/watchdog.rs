//! A test that hangs is ended, with its sidecars, and says which one it was.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::process;

/// Limits are those of a machine that does little else; one that is busy may take this many times as long.
const BUSY: u64 = 5;

/// Aborts the test process unless it is dropped in time.
#[derive(Debug)]
#[must_use]
pub struct Watchdog(Option<Sender<()>>);

impl Watchdog {
    /// For the test of the current thread.
    pub fn seconds(limit: u64) -> Self {
        let limit = limit * BUSY;
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            if dropped.recv_timeout(Duration::from_secs(limit)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test}: still not done after {limit} s, ending the test process");
                process::kill_all();
                std::process::abort();
            }
        });
        Self(Some(alive))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.take();
    }
}
