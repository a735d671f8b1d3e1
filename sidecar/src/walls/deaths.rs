//! Whether workers are lost so closely one after the other that there should be no next one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{MAX_WORKER_DEATHS, WORKER_DEATHS_WINDOW_MS};

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
