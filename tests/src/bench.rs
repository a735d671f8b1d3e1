//! Latencies of one thing, measured one by one.

use std::time::{Duration, Instant};

/// A sample of durations.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Runs `f` `warm` times unmeasured, then `count` times.
    pub fn of(warm: usize, count: usize, mut f: impl FnMut()) -> Self {
        for _ in 0..warm {
            f();
        }
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let started = Instant::now();
            f();
            taken.push(started.elapsed());
        }
        Self::from(taken)
    }

    /// Adds what was measured at another time.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.0.sort_unstable();
    }

    /// Nearest rank; zero of an empty sample.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub fn p50_us(&self) -> f64 {
        self.percentile(50.0).as_secs_f64() * 1e6
    }

    pub fn p99_us(&self) -> f64 {
        self.percentile(99.0).as_secs_f64() * 1e6
    }
}

impl From<Vec<Duration>> for Sample {
    fn from(mut taken: Vec<Duration>) -> Self {
        taken.sort_unstable();
        Self(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sample = Sample::from((1..=100).rev().map(Duration::from_micros).collect::<Vec<_>>());
        assert_eq!(sample.percentile(50.0), Duration::from_micros(50));
        assert_eq!(sample.percentile(99.0), Duration::from_micros(99));
        assert_eq!(sample.percentile(100.0), Duration::from_micros(100));
        assert_eq!(Sample::default().percentile(50.0), Duration::ZERO);
    }
}
