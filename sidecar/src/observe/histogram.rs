//! Two lock-free histograms of fixed size: one with exact bounds for Prometheus, one with small relative error for
//! percentiles.
//!
//! Recording is a handful of relaxed atomic additions: samples of several threads may be seen in any order, and a reader
//! beside a writer may see the count of a sample before its sum. Nothing is ever lost, and memory never grows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::HistogramFn;

/// Sub-buckets per power of two: 32, so that a percentile is within 1.6 % of a real sample.
const SUB_BITS: u32 = 5;
const SUB_BUCKETS: u64 = 1 << SUB_BITS;
/// Samples of 2^42 ns (73 minutes) and more share the last bucket.
const MAX_BITS: u32 = 42;
const BUCKETS: usize = ((MAX_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

const NANOS_PER_MICRO: f64 = 1e3;
const NANOS_PER_SECOND: f64 = 1e9;

/// Durations in logarithmic buckets that are split linearly; 10 KiB.
#[derive(Debug)]
pub struct LogLinear {
    buckets: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl LogLinear {
    pub fn new() -> Self {
        Self { buckets: zeros(BUCKETS), sum_nanos: AtomicU64::new(0) }
    }

    pub fn record_nanos(&self, nanos: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(nanos)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_nanos.fetch_add(nanos, Relaxed);
    }

    pub fn summary(&self) -> Summary {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = counts.iter().sum();
        Summary { counts, count, sum_nanos: self.sum_nanos.load(Relaxed) }
    }
}

impl Default for LogLinear {
    fn default() -> Self {
        Self::new()
    }
}

impl HistogramFn for LogLinear {
    /// `value` is in microseconds.
    fn record(&self, value: f64) {
        self.record_nanos(rounded(value * NANOS_PER_MICRO));
    }
}

/// A [`LogLinear`] at one moment.
#[derive(Debug)]
pub struct Summary {
    counts: Vec<u64>,
    count: u64,
    sum_nanos: u64,
}

impl Summary {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// Zero when there are no samples.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.checked_div(self.count).unwrap_or(0))
    }

    /// The middle of the bucket that holds the sample of rank `ceil(fraction * count)`; zero when there are no samples.
    pub fn quantile(&self, fraction: f64) -> Duration {
        let rank = ((fraction * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        Duration::from_nanos(bucket.map_or(0, middle_of))
    }
}

/// Counts of samples up to each of some bounds, as a Prometheus histogram has them. Samples are in seconds.
#[derive(Debug)]
pub struct Bounded {
    bounds: &'static [f64],
    /// One more than there are bounds: the last is for what exceeds all of them.
    buckets: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Bounded {
    /// `bounds` in seconds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, buckets: zeros(bounds.len() + 1), sum_nanos: AtomicU64::new(0) }
    }

    /// Each bound with the number of samples that do not exceed it; infinity comes last.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut total = 0;
        let counts = self.buckets.iter().map(|bucket| {
            total += bucket.load(Relaxed);
            total
        });
        bounds.zip(counts).collect()
    }

    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.load(Relaxed))
    }
}

impl HistogramFn for Bounded {
    fn record(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_nanos.fetch_add(rounded(value * NANOS_PER_SECOND), Relaxed);
    }
}

fn zeros(len: usize) -> Box<[AtomicU64]> {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(len).collect()
}

/// Saturates, so a negative or absurd sample harms nothing.
fn rounded(value: f64) -> u64 {
    (value + 0.5) as u64
}

/// Below 32 every number has its own bucket; above, the five bits behind the leading one choose among 32.
fn bucket_of(nanos: u64) -> usize {
    if nanos < SUB_BUCKETS {
        return nanos as usize;
    }
    let exponent = nanos.ilog2();
    if exponent >= MAX_BITS {
        return BUCKETS - 1;
    }
    let shift = exponent - SUB_BITS;
    let sub = (nanos >> shift) - SUB_BUCKETS;
    ((u64::from(shift + 1) << SUB_BITS) + sub) as usize
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let shift = (bucket >> SUB_BITS) - 1;
    let low = (SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1))) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_samples_bucket_is_within_two_percent_of_it() {
        let mut nanos = 1;
        while nanos < 1 << MAX_BITS {
            let middle = middle_of(bucket_of(nanos));
            assert!(middle.abs_diff(nanos) * 50 <= nanos, "{nanos} was taken for {middle}");
            nanos += nanos / 7 + 1;
        }
    }

    #[test]
    fn buckets_ascend_without_a_gap() {
        let mut last = 0;
        for nanos in 0..100_000 {
            let bucket = bucket_of(nanos);
            assert!(bucket == last || bucket == last + 1, "{nanos}");
            last = bucket;
        }
        assert_eq!(bucket_of((1 << MAX_BITS) - 1), BUCKETS - 1);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_mean_follow_the_samples() {
        let histogram = LogLinear::new();
        for micros in 1..=1000_u64 {
            histogram.record_nanos(micros * 1000);
        }
        let summary = histogram.summary();
        assert_eq!(summary.count(), 1000);
        assert_eq!(summary.mean(), Duration::from_nanos(500_500));
        for (fraction, micros) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = summary.quantile(fraction).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.02, "{fraction}: {found}");
        }
    }

    #[test]
    fn without_samples_everything_is_zero() {
        let summary = LogLinear::new().summary();
        assert_eq!((summary.count(), summary.mean(), summary.quantile(0.99)), (0, Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn one_sample_is_every_quantile() {
        let histogram = LogLinear::new();
        histogram.record(17.0);
        for fraction in [0.0, 0.5, 0.99, 1.0] {
            let micros = histogram.summary().quantile(fraction).as_secs_f64() * 1e6;
            assert!((micros - 17.0).abs() < 0.3, "{micros}");
        }
    }

    #[test]
    fn bounds_are_inclusive_and_counts_accumulate() {
        let histogram = Bounded::new(&[0.001, 0.01]);
        for seconds in [0.0005, 0.001, 0.002, 0.01, 5.0] {
            histogram.record(seconds);
        }
        assert_eq!(histogram.cumulative(), [(0.001, 2), (0.01, 4), (f64::INFINITY, 5)]);
        assert_eq!(histogram.sum(), Duration::from_nanos(5_013_500_000));
    }

    #[test]
    fn samples_of_several_threads_are_all_counted() {
        let (quantiles, bounded) = (LogLinear::new(), Bounded::new(&[0.5]));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for micros in 0..10_000 {
                        quantiles.record(f64::from(micros));
                        bounded.record(f64::from(micros));
                    }
                });
            }
        });
        assert_eq!(quantiles.summary().count(), 40_000);
        assert_eq!(bounded.cumulative(), [(0.5, 4), (f64::INFINITY, 40_000)]);
    }
}
