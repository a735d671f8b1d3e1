//! One worker after another: who serves now, and whether there should be a next one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{MAX_WORKER_DEATHS, WORKER_DEATHS_WINDOW_MS};

use super::Supervisor;
use crate::config::Config;
use crate::lifecycle::Served;
use crate::server::Pulse;

/// The worker that serves now.
pub struct Incumbent(Mutex<Arc<Supervisor>>);

impl Incumbent {
    pub fn new(first: Supervisor) -> Self {
        Self(Mutex::new(Arc::new(first)))
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Supervisor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for it with the lock held.
    pub fn now(&self) -> Arc<Supervisor> {
        self.lock().clone()
    }

    pub fn succeed(&self, next: Supervisor) {
        *self.lock() = Arc::new(next);
    }

    pub fn reload(&self, config: &Config) {
        self.now().reload(config);
    }
}

impl Served for Incumbent {
    fn drain(&self) {
        self.now().drain();
    }

    fn is_draining(&self) -> bool {
        self.now().is_draining()
    }

    fn prod(&self) {
        self.now().prod();
    }

    fn pulse(&self) -> Option<Pulse> {
        self.now().pulse()
    }

    fn has_stuck_run(&self) -> bool {
        self.now().has_stuck_run()
    }

    fn is_alive(&self, patience: Duration) -> bool {
        self.now().is_alive(patience)
    }

    fn prometheus(&self) -> Option<String> {
        self.now().prometheus()
    }

    fn is_ready(&self) -> bool {
        self.now().is_ready()
    }

    fn walls(&self) -> String {
        self.now().walls()
    }
}

/// When workers were lost, as far back as it matters.
#[derive(Debug, Default)]
pub struct Deaths(VecDeque<Instant>);

impl Deaths {
    /// One more. True: they follow each other so closely that the next one would be lost as well.
    pub fn one_more(&mut self, now: Instant) -> bool {
        let window = Duration::from_millis(WORKER_DEATHS_WINDOW_MS);
        self.0.retain(|then| now.saturating_duration_since(*then) < window);
        self.0.push_back(now);
        self.0.len() >= MAX_WORKER_DEATHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_a_loop_when_they_come_close_together_and_not_when_they_are_many() {
        let (mut deaths, start) = (Deaths::default(), Instant::now());
        let window = Duration::from_millis(WORKER_DEATHS_WINDOW_MS);
        let apart = window / (MAX_WORKER_DEATHS as u32 - 1);
        let mut now = start;
        for _ in 0..1000 {
            assert!(!deaths.one_more(now));
            now += apart;
        }
        let mut deaths = Deaths::default();
        for n in 1..MAX_WORKER_DEATHS {
            assert!(!deaths.one_more(now + Duration::from_millis(n as u64)), "{n}");
        }
        assert!(deaths.one_more(now + Duration::from_millis(500)));
    }
}
