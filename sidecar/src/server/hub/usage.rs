//! Who uses much of the processors, in many runs that are brief each.
//!
//! **The rule.** While a window of time goes by, what a session's runs use of the processors is added up. More than an eighth of its equal
//! part of them is much: the processors' time, divided by the sessions that ran something in this window or in the one before, or by
//! those that are there, if these are fewer: who connects anew for each run makes nobody's part smaller.
//! Whoever has used much runs often, until the end of the next window.
//!
//! The clock is looked at when a run begins, which is done anyway, and not when one ends.

use std::time::{Duration, Instant};

use nexus_protocol::limits::USAGE_WINDOW_MS;

const WINDOW: Duration = Duration::from_millis(USAGE_WINDOW_MS);
/// What is much: one of so many pieces of an equal part. Not more, since on a busy machine nobody gets an equal part, and what the host
/// does for an execution that compiles nothing is not counted (see `meter`). Who is taken for such a one loses little: it has its turn
/// among them, and a processor.
const MUCH: u32 = 8;

/// What one session has used.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// In which window.
    window: u64,
    cpu: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Windows {
    processors: u32,
    /// Of the one that goes by; of none at first.
    number: u64,
    began: Option<Instant>,
    /// Sessions that have run something in it.
    sessions: u32,
    /// The same of the window before.
    sessions_before: u32,
}

impl Windows {
    pub fn new(processors: usize) -> Self {
        let processors = u32::try_from(processors.max(1)).unwrap_or(u32::MAX);
        Self { processors, number: 0, began: None, sessions: 0, sessions_before: 0 }
    }

    /// A run of a session begins.
    pub fn begin(&mut self, usage: &mut Usage, now: Instant) {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        if age.is_none_or(|age| age >= WINDOW) {
            self.sessions_before = if age.is_some_and(|age| age < 2 * WINDOW) { self.sessions } else { 0 };
            (self.sessions, self.began) = (0, Some(now));
            self.number += 1;
        }
        self.counts(usage);
    }

    fn counts(&mut self, usage: &mut Usage) {
        if usage.window != self.number {
            *usage = Usage { window: self.number, cpu: Duration::ZERO };
            self.sessions += 1;
        }
    }

    /// A run of a session has used so much. If that is much by now: until when the session runs often. `there`: the sessions that are.
    pub fn add(&mut self, usage: &mut Usage, cpu: Duration, there: usize) -> Option<Instant> {
        self.counts(usage);
        usage.cpu = usage.cpu.saturating_add(cpu);
        let there = u32::try_from(there).unwrap_or(u32::MAX);
        let sessions = self.sessions.max(self.sessions_before).min(there).max(1);
        let much = WINDOW.saturating_mul(self.processors) / sessions.saturating_mul(MUCH);
        if usage.cpu <= much {
            return None;
        }
        self.began?.checked_add(2 * WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn more_than_an_eighth_of_an_equal_part_is_much() {
        let start = Instant::now();
        let mut windows = Windows::new(2);
        let mut all: [Usage; 5] = Default::default();
        all.iter_mut().for_each(|usage| windows.begin(usage, start));
        // an equal part of 200 ms is 40 ms
        assert_eq!(windows.add(&mut all[0], 4 * MS, 9), None);
        assert_eq!(windows.add(&mut all[0], MS, 9), None);
        assert_eq!(windows.add(&mut all[1], 4 * MS, 9), None, "each has its own");
        assert_eq!(windows.add(&mut all[0], MS / 1000, 9), Some(start + 2 * WINDOW));
        assert_eq!(
            windows.add(&mut all[0], Duration::ZERO, 9),
            Some(start + 2 * WINDOW),
            "for as long as the window goes by"
        );
    }

    #[test]
    fn a_window_begins_from_nothing_and_those_of_the_one_before_count_as_there() {
        let start = Instant::now();
        let mut windows = Windows::new(1);
        let mut all: [Usage; 2] = Default::default();
        all.iter_mut().for_each(|usage| windows.begin(usage, start));
        assert!(windows.add(&mut all[0], 7 * MS, 9).is_some());
        windows.begin(&mut all[0], start + WINDOW - MS);
        assert!(windows.add(&mut all[0], Duration::ZERO, 9).is_some(), "it is the same window");
        let next = start + WINDOW;
        windows.begin(&mut all[0], next);
        assert_eq!(windows.add(&mut all[0], 6 * MS, 9), None, "the other one was there just now");
        assert_eq!(windows.add(&mut all[0], MS, 9), Some(next + 2 * WINDOW));
        let later = next + 2 * WINDOW;
        windows.begin(&mut all[0], later);
        assert_eq!(windows.add(&mut all[0], 12 * MS, 9), None, "it is alone");
        assert!(windows.add(&mut all[0], MS, 9).is_some());
        // a run that began in a window before counts where it ends, and its session too
        assert_eq!(windows.add(&mut all[1], 6 * MS, 9), None);
        assert!(windows.add(&mut all[1], MS, 9).is_some());
    }

    #[test]
    fn whoever_comes_and_goes_makes_nobodys_part_smaller() {
        let start = Instant::now();
        let mut windows = Windows::new(2);
        let (mut steady, mut there) = (Usage::default(), 2);
        windows.begin(&mut steady, start);
        for _ in 0..100 {
            windows.begin(&mut Usage::default(), start);
        }
        // an eighth of 100 ms
        assert_eq!(windows.add(&mut steady, 12 * MS, there), None);
        there = 100;
        assert!(windows.add(&mut steady, Duration::ZERO, there).is_some(), "those that stay do");
    }
}
