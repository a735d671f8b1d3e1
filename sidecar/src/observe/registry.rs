//! The recorder behind the `metrics` facade: fixed memory, and Prometheus text on demand.
//!
//! Why not an exporter crate: theirs keep every histogram sample until somebody scrapes, and a sidecar that nobody
//! scrapes must not grow. Here a histogram is a fixed array of atomics.
//!
//! Registering and rendering take a lock; recording through a handle never does. A family holds at most [`MAX_SERIES`]
//! label sets; handles beyond that record nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use super::histogram::{Bounded, LogLinear};

/// Label sets of one family. The largest family of ours is `nexus_errors_total`, with one per error code.
const MAX_SERIES: usize = 128;
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// What a histogram of a given name is kept as.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A Prometheus histogram with these bounds; samples are seconds.
    Bounds(&'static [f64]),
    /// A Prometheus summary with quantiles; samples are microseconds.
    Quantiles,
}

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Registry {
    shapes: &'static [(&'static str, Shape)],
    families: Mutex<BTreeMap<String, Family>>,
}

#[derive(Debug)]
struct Family {
    help: SharedString,
    series: BTreeMap<Labels, Series>,
}

type Labels = Vec<(String, String)>;

#[derive(Debug, Clone)]
enum Series {
    Counter(Arc<AtomicU64>),
    /// The bits of an `f64`.
    Gauge(Arc<AtomicU64>),
    Bounds(Arc<Bounded>),
    Quantiles(Arc<LogLinear>),
}

impl Registry {
    /// `shapes`: every histogram by name; one that is not listed records nothing.
    pub fn new(shapes: &'static [(&'static str, Shape)]) -> Self {
        Self { shapes, families: Mutex::new(BTreeMap::new()) }
    }

    /// The quantiles behind the histogram `name`, where it has that shape and is registered without labels.
    pub fn quantiles(&self, name: &str) -> Option<Arc<LogLinear>> {
        match self.lock().get(name)?.series.get(&Labels::new())? {
            Series::Quantiles(quantiles) => Some(Arc::clone(quantiles)),
            Series::Counter(_) | Series::Gauge(_) | Series::Bounds(_) => None,
        }
    }

    /// The Prometheus text format, version 0.0.4, families by name.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, family) in self.lock().iter() {
            let Some(first) = family.series.values().next() else {
                continue;
            };
            let _ = writeln!(out, "# HELP {name} {}", escape_help(&family.help));
            let _ = writeln!(out, "# TYPE {name} {}", first.type_name());
            for (labels, series) in &family.series {
                series.render(&mut out, name, labels);
            }
        }
        out
    }

    /// Shows the series that a family has by now under another name too. The two are one count.
    pub fn also_under(&self, name: &str, family: &str, help: &str) {
        let mut families = self.lock();
        let series = families.get(family).map(|family| family.series.clone()).unwrap_or_default();
        families.insert(name.to_owned(), Family { help: SharedString::from(help.to_owned()), series });
    }

    /// The series of `key`, made by `make` when it is new; `None` beyond the cap.
    fn series(&self, key: &Key, make: impl FnOnce() -> Series) -> Option<Series> {
        let mut families = self.lock();
        let family = families.entry(key.name().to_owned()).or_insert_with(|| Family::new(SharedString::from("")));
        let labels: Labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        if family.series.len() >= MAX_SERIES && !family.series.contains_key(&labels) {
            return None;
        }
        Some(family.series.entry(labels).or_insert_with(make).clone())
    }

    fn describe(&self, name: KeyName, help: SharedString) {
        self.lock().entry(name.as_str().to_owned()).or_insert_with(|| Family::new(SharedString::from(""))).help = help;
    }

    /// A panic while the lock was held leaves the maps whole: each change is one insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    fn new(help: SharedString) -> Self {
        Self { help, series: BTreeMap::new() }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(key, description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(key, description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(key, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Some(Series::Counter(value)) => Counter::from_arc(value),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Some(Series::Gauge(value)) => Gauge::from_arc(value),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let Some((_, shape)) = self.shapes.iter().find(|(name, _)| *name == key.name()) else {
            return Histogram::noop();
        };
        let made = self.series(key, || match shape {
            Shape::Bounds(bounds) => Series::Bounds(Arc::new(Bounded::new(bounds))),
            Shape::Quantiles => Series::Quantiles(Arc::default()),
        });
        match made {
            Some(Series::Bounds(histogram)) => Histogram::from_arc(histogram),
            Some(Series::Quantiles(histogram)) => Histogram::from_arc(histogram),
            _ => Histogram::noop(),
        }
    }
}

impl Series {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Bounds(_) => "histogram",
            Self::Quantiles(_) => "summary",
        }
    }

    fn render(&self, out: &mut String, name: &str, labels: &Labels) {
        let mut line = |suffix: &str, extra: Option<(&str, f64)>, value: f64| {
            let labels = render_labels(labels, extra);
            let _ = writeln!(out, "{name}{suffix}{labels} {}", number(value));
        };
        match self {
            Self::Counter(value) => line("", None, value.load(Relaxed) as f64),
            Self::Gauge(bits) => line("", None, f64::from_bits(bits.load(Relaxed))),
            Self::Bounds(histogram) => {
                let sum = histogram.sum();
                let cumulative = histogram.cumulative();
                for (bound, count) in &cumulative {
                    line("_bucket", Some(("le", *bound)), *count as f64);
                }
                line("_sum", None, sum.as_secs_f64());
                line("_count", None, cumulative.last().map_or(0, |(_, count)| *count) as f64);
            }
            Self::Quantiles(histogram) => {
                let summary = histogram.summary();
                for fraction in QUANTILES {
                    line("", Some(("quantile", fraction)), summary.quantile(fraction).as_nanos() as f64 / 1e3);
                }
                line("_sum", None, summary.sum().as_nanos() as f64 / 1e3);
                line("_count", None, summary.count() as f64);
            }
        }
    }
}

fn render_labels(labels: &Labels, extra: Option<(&str, f64)>) -> String {
    let own = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape_label(value)));
    let extra = extra.map(|(key, value)| format!("{key}=\"{}\"", number(value)));
    let all: Vec<String> = own.chain(extra).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn number(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".to_owned() } else { value.to_string() }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn escape_label(text: &str) -> String {
    escape_help(text).replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    use super::*;

    const SHAPES: &[(&str, Shape)] = &[("h_seconds", Shape::Bounds(&[0.1, 1.0])), ("q_us", Shape::Quantiles)];

    #[test]
    fn every_kind_renders_as_prometheus_text() {
        let registry = Registry::new(SHAPES);
        with_local_recorder(&registry, || {
            describe_counter!("c_total", "things \\ lines\nof two");
            counter!("c_total", "kind" => "a\"b\\c\nd").increment(3);
            gauge!("g").set(0.5);
            histogram!("h_seconds").record(0.05);
            histogram!("h_seconds").record(7.0);
            histogram!("q_us").record(10.0);
        });
        let expected = r#"# HELP c_total things \\ lines\nof two
# TYPE c_total counter
c_total{kind="a\"b\\c\nd"} 3
# HELP g 
# TYPE g gauge
g 0.5
# HELP h_seconds 
# TYPE h_seconds histogram
h_seconds_bucket{le="0.1"} 1
h_seconds_bucket{le="1"} 1
h_seconds_bucket{le="+Inf"} 2
h_seconds_sum 7.05
h_seconds_count 2
# HELP q_us 
# TYPE q_us summary
q_us{quantile="0.5"} 10.112
q_us{quantile="0.95"} 10.112
q_us{quantile="0.99"} 10.112
q_us_sum 10
q_us_count 1
"#;
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn a_family_under_two_names_is_counted_once() {
        let registry = Registry::new(SHAPES);
        with_local_recorder(&registry, || {
            let counter = counter!("new_total", "a" => "b");
            registry.also_under("old_total", "new_total", "gone soon");
            counter.increment(2);
        });
        let text = registry.render();
        assert!(text.contains("new_total{a=\"b\"} 2\n") && text.contains("old_total{a=\"b\"} 2\n"), "{text}");
        assert!(text.contains("# HELP old_total gone soon\n# TYPE old_total counter\n"), "{text}");
    }

    #[test]
    fn one_name_has_one_kind() {
        let registry = Registry::new(SHAPES);
        with_local_recorder(&registry, || {
            counter!("x").increment(1);
            gauge!("x").set(5.0);
        });
        assert!(registry.render().ends_with("x 1\n"));
    }

    #[test]
    fn label_sets_beyond_the_cap_are_not_kept() {
        let registry = Registry::new(SHAPES);
        with_local_recorder(&registry, || {
            for index in 0..10_000 {
                counter!("c", "name" => index.to_string()).increment(1);
            }
        });
        assert_eq!(registry.render().lines().count(), MAX_SERIES + 2);
    }

    #[test]
    fn a_described_metric_without_a_series_is_not_rendered() {
        let registry = Registry::new(SHAPES);
        with_local_recorder(&registry, || describe_counter!("c_total", "things"));
        assert_eq!(registry.render(), "");
    }
}
