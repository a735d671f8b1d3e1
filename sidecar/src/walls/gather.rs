//! The metrics of several workers as one text, in which each sample says of which worker it is.
//!
//! What a worker says may be anything. Only lines that are samples of ours are taken, each of which names its own worker, so that
//! none can speak for another.

use std::collections::BTreeMap;

const PREFIX: &str = "nexus_";
/// What the supervisor says itself.
const OWN_PREFIX: &str = "nexus_workers";
/// More families than there are, of which each has one heading.
const MAX_FAMILIES: usize = 200;

/// `told`: the number of each worker, and its text.
pub fn merged(told: &[(usize, String)]) -> String {
    let mut families: BTreeMap<&str, (Vec<&str>, String)> = BTreeMap::new();
    for (worker, text) in told {
        let mut family = "";
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")) {
                let name = heading.split(' ').next().unwrap_or_default();
                let known = families.contains_key(name);
                if !is_name(name) || !known && families.len() >= MAX_FAMILIES {
                    family = "";
                    continue;
                }
                family = name;
                let (headings, _) = families.entry(name).or_default();
                // those of the first one that has any
                let kind = line.get(..7).unwrap_or_default();
                if !headings.iter().any(|heading| heading.starts_with(kind)) {
                    headings.push(line);
                }
            } else if let Some(sample) = sample_of(*worker, family, line)
                && let Some((_, samples)) = families.get_mut(family)
            {
                samples.push_str(&sample);
            }
        }
    }
    let mut text = String::new();
    for (headings, samples) in families.values() {
        for heading in headings {
            text.push_str(heading);
            text.push('\n');
        }
        text.push_str(samples);
    }
    text
}

fn is_name(name: &str) -> bool {
    let taken = name.starts_with(PREFIX) && !name.starts_with(OWN_PREFIX);
    taken && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A line that is a sample of the family, with its worker. None: it is not.
fn sample_of(worker: usize, family: &str, line: &str) -> Option<String> {
    let (series, value) = line.rsplit_once(' ')?;
    value.parse::<f64>().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, Some(labels.strip_suffix('}')?)),
        None => (series, None),
    };
    // a histogram's samples have names that are longer than the family's
    let ours = is_name(name) && !family.is_empty() && name.starts_with(family);
    let plain = |labels: &str| labels.bytes().all(|b| (0x20..0x7f).contains(&b) && !b"{}\\".contains(&b));
    let labels = labels.filter(|labels| !labels.is_empty());
    if !ours || labels.is_some_and(|labels| !plain(labels) || labels.contains("worker=")) {
        return None;
    }
    let labels = labels.map(|labels| format!(",{labels}")).unwrap_or_default();
    Some(format!("{name}{{worker=\"{worker}\"{labels}}} {value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_together_by_family_and_say_whose_they_are() {
        let text = |n: u32| {
            format!(
                "# HELP nexus_a Says a.\n# TYPE nexus_a counter\nnexus_a{{status=\"x\"}} {n}\n\
                 # HELP nexus_b Says b.\n# TYPE nexus_b gauge\nnexus_b {n}.5\n"
            )
        };
        assert_eq!(
            merged(&[(0, text(1)), (4, text(2))]),
            "# HELP nexus_a Says a.\n# TYPE nexus_a counter\nnexus_a{worker=\"0\",status=\"x\"} 1\n\
             nexus_a{worker=\"4\",status=\"x\"} 2\n\
             # HELP nexus_b Says b.\n# TYPE nexus_b gauge\nnexus_b{worker=\"0\"} 1.5\nnexus_b{worker=\"4\"} 2.5\n"
        );
    }

    #[test]
    fn no_worker_speaks_for_another_or_breaks_the_text() {
        let lies = "# HELP nexus_a Says a.\n# TYPE nexus_a gauge\n\
                    nexus_a{worker=\"0\"} 9\nnexus_a{x=\"1\",worker=\"0\"} 9\nnexus_a 1 2 x\nnexus_a{ 1\nnexus_a} 1\n\
                    nexus_a{x=\"}\n{worker=\"0\"} 1\n# HELP other x\nother 1\nother_a 1\n# HELP nexus_workers x\nnexus_workers 1\nnexus_b 1\n# whatever\n";
        assert_eq!(merged(&[(3, lies.into())]), "# HELP nexus_a Says a.\n# TYPE nexus_a gauge\n");
        let many: String = (0..1000).map(|n| format!("# HELP nexus_{n} x\nnexus_{n} 1\n")).collect();
        assert_eq!(merged(&[(1, many)]).matches("# HELP").count(), MAX_FAMILIES);
    }
}
