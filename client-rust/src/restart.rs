//! When a sidecar that has ended is started again. Time comes in, decisions go out; starts nothing itself.
//!
//! One that ran well is replaced at once. One that died young is replaced after a wait that doubles, less a random half, so
//! that many clients do not start at the same moment. Too many deaths in a window are a crash loop: nothing is started until
//! the cool-down is over; then one start is tried (half-open), and its early death opens the circuit again at once.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{
    CLIENT_BACKOFF_FIRST_MS, CLIENT_BACKOFF_MAX_MS, CLIENT_CRASH_LOOP_COOL_DOWN_MS, CLIENT_CRASH_LOOP_DEATHS,
    CLIENT_CRASH_LOOP_WINDOW_MS, CLIENT_STABLE_AFTER_MS,
};

/// When a sidecar that has ended is started, or connected to, again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// So many deaths within [`window`](Self::window) are a crash loop: calls fail at once. 0: never start again.
    pub max_crashes: usize,
    /// See there.
    pub window: Duration,
    /// How long calls fail in a crash loop before one start is tried.
    pub cool_down: Duration,
    /// The longest wait before the next start of a sidecar that died young.
    pub max_delay: Duration,
}

/// In place of a time that the clock cannot hold.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_crashes: CLIENT_CRASH_LOOP_DEATHS,
            window: Duration::from_millis(CLIENT_CRASH_LOOP_WINDOW_MS),
            cool_down: Duration::from_millis(CLIENT_CRASH_LOOP_COOL_DOWN_MS),
            max_delay: Duration::from_millis(CLIENT_BACKOFF_MAX_MS),
        }
    }
}

impl RestartPolicy {
    /// A sidecar that has gone stays gone.
    pub fn never() -> Self {
        Self::default().max_crashes(0)
    }

    /// So many deaths within [`window`](Self::window) are a crash loop; 0: never start again.
    #[must_use]
    pub fn max_crashes(mut self, crashes: usize) -> Self {
        self.max_crashes = crashes;
        self
    }

    /// See there.
    #[must_use]
    pub fn window(mut self, time: Duration) -> Self {
        self.window = time;
        self
    }

    /// How long calls fail in a crash loop before one start is tried.
    #[must_use]
    pub fn cool_down(mut self, time: Duration) -> Self {
        self.cool_down = time;
        self
    }

    /// The longest wait before the next start of a sidecar that died young.
    #[must_use]
    pub fn max_delay(mut self, time: Duration) -> Self {
        self.max_delay = time;
        self
    }
}

/// What to do for a call that needs a sidecar when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start one, after this wait.
    Start(Duration),
    /// Fail; the next try is so far off.
    Refuse { deaths: usize, retry_after: Duration },
    /// Fail for good.
    Never,
}

enum State {
    Closed,
    HalfOpen,
    Open { until: Instant },
}

pub(crate) struct Restarts {
    policy: RestartPolicy,
    deaths: VecDeque<Instant>,
    /// Deaths in a row without one that ran well.
    early: u32,
    state: State,
}

impl Restarts {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self { policy, deaths: VecDeque::new(), early: 0, state: State::Closed }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Next {
        if self.policy.max_crashes == 0 {
            return Next::Never;
        }
        if let State::Open { until } = self.state {
            let retry_after = until.saturating_duration_since(now);
            if !retry_after.is_zero() {
                return Next::Refuse { deaths: self.deaths.len(), retry_after };
            }
            self.state = State::HalfOpen;
            return Next::Start(Duration::ZERO);
        }
        if self.early == 0 {
            return Next::Start(Duration::ZERO);
        }
        let doubled = 1_u64.checked_shl((self.early - 1).min(32)).unwrap_or(u64::MAX);
        let full = Duration::from_millis(CLIENT_BACKOFF_FIRST_MS.saturating_mul(doubled)).min(self.policy.max_delay);
        // The keys of a hasher are the randomness that std has.
        let half_at_most = RandomState::new().hash_one(self.early) % 1_000;
        Next::Start(full - full * half_at_most as u32 / 2_000)
    }

    /// A sidecar has ended, or was not to be had, and nobody had asked for that. `ready_since`: since when it had answered.
    pub(crate) fn died(&mut self, ready_since: Option<Instant>, at: Instant) {
        let stable_after = Duration::from_millis(CLIENT_STABLE_AFTER_MS);
        let stable = ready_since.is_some_and(|since| at.saturating_duration_since(since) >= stable_after);
        self.early = if stable { 0 } else { self.early.saturating_add(1) };
        self.deaths.retain(|death| at.saturating_duration_since(*death) < self.policy.window);
        self.deaths.push_back(at);
        let half_open = matches!(self.state, State::HalfOpen);
        if half_open && stable {
            self.state = State::Closed;
            self.deaths = VecDeque::from([at]);
        } else if half_open || self.deaths.len() >= self.policy.max_crashes {
            self.state = State::Open { until: at.checked_add(self.policy.cool_down).unwrap_or_else(|| at + FOREVER) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(max_crashes: usize) -> RestartPolicy {
        RestartPolicy { max_crashes, window: 10_000 * MS, cool_down: 1_000 * MS, max_delay: 150 * MS }
    }

    #[test]
    fn one_that_ran_well_is_replaced_at_once_and_waits_double_for_the_others() {
        let start = Instant::now();
        let mut restarts = Restarts::new(policy(100));
        assert_eq!(restarts.next(start), Next::Start(Duration::ZERO));
        restarts.died(Some(start), start + 5_000 * MS);
        assert_eq!(restarts.next(start), Next::Start(Duration::ZERO));
        for full in [50, 100, 150, 150] {
            restarts.died(Some(start), start);
            let Next::Start(wait) = restarts.next(start) else { panic!("refused") };
            assert!(wait > full * MS / 2 && wait <= full * MS, "{wait:?} of {full} ms");
        }
    }

    #[test]
    fn too_many_deaths_open_the_circuit_and_one_start_is_tried_after_the_cool_down() {
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let mut restarts = Restarts::new(policy(3));
        for ms in [0, 10, 20] {
            restarts.died(None, at(ms));
        }
        assert_eq!(restarts.next(at(520)), Next::Refuse { deaths: 3, retry_after: 500 * MS });
        assert_eq!(restarts.next(at(1_020)), Next::Start(Duration::ZERO));
        restarts.died(Some(at(1_020)), at(1_100));
        assert!(matches!(restarts.next(at(1_200)), Next::Refuse { .. }), "half-open: one early death is enough");
        assert_eq!(restarts.next(at(2_100)), Next::Start(Duration::ZERO));
        restarts.died(Some(at(2_100)), at(4_000));
        assert_eq!(restarts.next(at(4_000)), Next::Start(Duration::ZERO));
    }

    #[test]
    fn a_policy_of_never_starts_nothing() {
        assert_eq!(Restarts::new(RestartPolicy::never()).next(Instant::now()), Next::Never);
    }
}
