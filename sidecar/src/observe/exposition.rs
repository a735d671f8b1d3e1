//! The metrics as text for scrapers: Prometheus' own format, and OpenMetrics made of it.
//!
//! OpenMetrics wants the name of a counter's family without its `_total`, so that two families of ours which differed in that alone
//! could not both be told: names of before are left out.

use std::fmt::Write;

use super::metrics::FORMER;

/// The form in which somebody wants the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    OpenMetrics,
}

impl Exposition {
    /// What a request that accepts this gets; Prometheus' format is the older one, which everybody reads.
    pub fn accepted(accept: &str) -> Self {
        let wanted = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
        let is_wanted = |kind: &str| kind.eq_ignore_ascii_case("application/openmetrics-text");
        if wanted.into_iter().any(is_wanted) { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// `text` is of the Prometheus format.
    pub fn of(self, text: String) -> String {
        match self {
            Self::Prometheus => text,
            Self::OpenMetrics => open_metrics(&text),
        }
    }
}

fn open_metrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    let mut is_former = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            is_former = FORMER.iter().any(|(former, _)| help.is_some_and(|(name, _)| name == *former));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if is_former {
                continue;
            }
            let family = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
            let _ = writeln!(out, "# TYPE {family} {kind}");
            if let Some((_, help)) = help.filter(|(_, help)| !help.is_empty()) {
                let _ = writeln!(out, "# HELP {family} {}", help.replace('"', "\\\""));
            }
        } else if !is_former {
            out.push_str(&with_canonical_bound(line));
            out.push('\n');
        }
    }
    out.push_str("# EOF\n");
    out
}

/// A sample whose `le` or `quantile` is written as OpenMetrics wants numbers there: with a point or an exponent of two digits.
fn with_canonical_bound(line: &str) -> String {
    for label in ["le=\"", "quantile=\""] {
        let found = line.split_once(label).and_then(|(head, rest)| Some((head, rest.split_once('"')?)));
        if let Some((head, (number, tail))) = found
            && let Ok(number) = number.parse::<f64>()
            && number.is_finite()
        {
            return format!("{head}{label}{}\"{tail}", canonical(number));
        }
    }
    line.to_owned()
}

fn canonical(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_openmetrics_gets_it() {
        let scraper = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Exposition::accepted(scraper), Exposition::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "text/html, application/openmetrics-texts"] {
            assert_eq!(Exposition::accepted(accept), Exposition::Prometheus, "{accept}");
        }
    }

    #[test]
    fn families_of_counters_lose_their_ending_and_names_of_before_are_left_out() {
        let text = "# HELP nexus_a_total what \"a\" is\n# TYPE nexus_a_total counter\nnexus_a_total{x=\"y\"} 2\n\
                    # HELP nexus_suspensions_total old\n# TYPE nexus_suspensions_total counter\nnexus_suspensions_total 7\n\
                    # HELP nexus_b_seconds b\n# TYPE nexus_b_seconds histogram\n\
                    nexus_b_seconds_bucket{le=\"1\"} 3\nnexus_b_seconds_bucket{le=\"0.00001\"} 3\nnexus_b_seconds_bucket{le=\"+Inf\"} 4\n";
        let expected = "# TYPE nexus_a counter\n# HELP nexus_a what \\\"a\\\" is\nnexus_a_total{x=\"y\"} 2\n\
                        # TYPE nexus_b_seconds histogram\n# HELP nexus_b_seconds b\n\
                        nexus_b_seconds_bucket{le=\"1.0\"} 3\nnexus_b_seconds_bucket{le=\"1e-05\"} 3\nnexus_b_seconds_bucket{le=\"+Inf\"} 4\n# EOF\n";
        assert_eq!(open_metrics(text), expected);
    }
}
