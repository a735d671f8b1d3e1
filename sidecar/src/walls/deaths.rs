//! Whether workers are lost so closely one after the other that there should be no next one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{MAX_WORKER_DEATHS, WORKER_DEATHS_WINDOW_MS};

/// When workers were lost, as far back as it matters.
#[derive(Debug, Default)]
pub struct Deaths {
    of_late: VecDeque<Instant>,
    /// One after the other that were never able to serve, however long each of them took for that.
    unborn: usize,
}

impl Deaths {
    /// One more. True: they follow each other so closely that the next one would be lost as well.
    pub fn one_more(&mut self, now: Instant) -> bool {
        let window = Duration::from_millis(WORKER_DEATHS_WINDOW_MS);
        self.of_late.retain(|then| now.saturating_duration_since(*then) < window);
        self.of_late.push_back(now);
        self.of_late.len() >= MAX_WORKER_DEATHS || self.unborn >= MAX_WORKER_DEATHS
    }

    /// As [`Deaths::one_more`], of one that was lost before it was able to serve.
    pub fn one_more_unborn(&mut self, now: Instant) -> bool {
        self.unborn += 1;
        self.one_more(now)
    }

    /// One is able to serve.
    pub fn one_is_born(&mut self) {
        self.unborn = 0;
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

    #[test]
    fn those_that_never_serve_are_a_loop_however_far_apart_they_are() {
        let (mut deaths, mut now) = (Deaths::default(), Instant::now());
        let far = Duration::from_millis(100 * WORKER_DEATHS_WINDOW_MS);
        for _ in 0..3 {
            for n in 1..MAX_WORKER_DEATHS {
                now += far;
                assert!(!deaths.one_more_unborn(now), "{n}");
            }
            deaths.one_is_born();
        }
        for n in 1..=MAX_WORKER_DEATHS {
            now += far;
            assert_eq!(deaths.one_more_unborn(now), n == MAX_WORKER_DEATHS);
        }
    }
}
