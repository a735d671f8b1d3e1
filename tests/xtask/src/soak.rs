//! `cargo xtask soak`: the tests that chance may hide things from, as often as a night allows. Each part is a test of the
//! gate with a larger number in its environment, and prints its figures; a plain soak is the long load and some isolation.

use anyhow::{Context, Result};

use crate::loops::{SIDECAR, cargo_with, setup};
use crate::places::Places;
use crate::process::shown;
use crate::stages::Stages;
use crate::{toolchain, workspace};

/// A test, and the variable that says how often.
struct Run {
    name: &'static str,
    target: &'static [&'static str],
    /// Parts of the names of tests; all of the target if there is none.
    tests: &'static [&'static str],
    variable: &'static str,
    /// So many for each of what is asked for.
    share: fn(u64) -> u64,
}

/// Something that can be asked for by itself, and how much of it there is if no number is said.
struct Part {
    flag: &'static str,
    usual: u64,
    runs: &'static [Run],
}

const PARTS: &[Part] = &[
    Part {
        flag: "--isolation",
        usual: 10_000,
        runs: &[
            Run {
                name: "traces in memory",
                target: &["--release", "-p", "nexus-sidecar", "--lib"],
                tests: &["isolation_tests"],
                variable: "NEXUS_ISOLATION_PAIRS",
                share: |n| n,
            },
            Run {
                name: "traces in the realm",
                target: &["-p", "nexus-tests", "--test", "isolation"],
                tests: &[],
                variable: "NEXUS_ISOLATION_PAIRS",
                share: |n| n,
            },
        ],
    },
    Part {
        flag: "--kills",
        usual: 1_000,
        runs: &[
            Run {
                name: "kills of sidecars and clients",
                target: &["-p", "nexus-tests", "--test", "kills"],
                tests: &["vanish", "killed"],
                variable: "NEXUS_KILLS",
                share: |n| n,
            },
            Run {
                name: "kills under the Rust client",
                target: &["-p", "nexus-client", "--test", "restart"],
                tests: &["kill_storm"],
                variable: "NEXUS_KILLS",
                share: |n| n,
            },
            Run {
                name: "kills of parents",
                target: &["-p", "nexus-tests", "--test", "lifecycle"],
                tests: &["parent"],
                variable: "NEXUS_TRIALS",
                share: |n| n.div_ceil(5),
            },
        ],
    },
    Part {
        flag: "--churn",
        usual: 100_000,
        runs: &[Run {
            name: "innocent executions beside a churn",
            target: &["-p", "nexus-tests", "--test", "books"],
            tests: &["what_ends_one_execution"],
            variable: "NEXUS_CHURN",
            share: |n| n,
        }],
    },
    Part {
        flag: "--simulation",
        usual: 100_000,
        runs: &[Run {
            name: "simulation of the server's books",
            target: &["--release", "-p", "nexus-sidecar", "--lib"],
            tests: &["simulation"],
            variable: "NEXUS_SEEDS",
            share: |n| n,
        }],
    },
    Part {
        flag: "--races",
        usual: 10_000,
        runs: &[Run {
            name: "races and guesses for suspensions",
            target: &["-p", "nexus-tests", "--test", "races"],
            tests: &[],
            variable: "NEXUS_TRIALS",
            share: |n| n,
        }],
    },
    Part {
        flag: "--instances",
        usual: 10_000,
        runs: &[Run {
            name: "instances made and destroyed",
            target: &["-p", "nexus-tests", "--test", "kills"],
            tests: &["instances"],
            variable: "NEXUS_TRIALS",
            share: |n| n,
        }],
    },
];

/// The units under a running systemd, in a machine of its own: for root, and only where a container can be booted.
const SYSTEMD: &str = "--systemd";
/// Of a soak that asks for no part.
const PAIRS: u64 = 2_000;

/// A part alone, as often as its number says; or a long load, then canaries, seen from the host and from the next execution.
pub fn soak(places: &Places, stages: &mut Stages, words: &[&str]) -> Result<()> {
    if words == [SYSTEMD] {
        return under_systemd(places, stages);
    }
    let asked = part(words)?;
    setup(places, stages)?;
    if let Some((part, times)) = asked {
        return repeat(places, stages, part, times);
    }
    let sidecar = workspace::sidecar(&places.root)?;
    let load = ["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "soak", "--"];
    stages.run("long load", || shown(cargo_with(&places.root, &[&load, words].concat()).env(SIDECAR, &sidecar)))?;
    repeat(places, stages, &PARTS[0], PAIRS)
}

fn under_systemd(places: &Places, stages: &mut Stages) -> Result<()> {
    setup(places, stages)?;
    stages.run("systemd-nspawn", toolchain::ensure_nspawn)?;
    let sidecar = workspace::sidecar(&places.root)?;
    let mut command =
        cargo_with(&places.root, &["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "under-systemd"]);
    command.env(SIDECAR, &sidecar).env("NEXUS_BUILD_CACHE", &places.cache);
    stages.run("units under systemd", || shown(&mut command))
}

/// The part that is asked for, and how much of it.
fn part(words: &[&str]) -> Result<Option<(&'static Part, u64)>> {
    let Some(part) = PARTS.iter().find(|part| words.contains(&part.flag)) else { return Ok(None) };
    let times = match words {
        [_] => part.usual,
        [flag, times] if *flag == part.flag => {
            times.parse().with_context(|| format!("`{times}` is no number for {flag}"))?
        }
        _ => anyhow::bail!("{} takes one number and no other words", part.flag),
    };
    Ok(Some((part, times)))
}

/// Every run of it is made, also after one has failed.
fn repeat(places: &Places, stages: &mut Stages, part: &Part, times: u64) -> Result<()> {
    let sidecar = workspace::sidecar(&places.root)?;
    let mut result = Ok(());
    for run in part.runs {
        let mut command = cargo_with(&places.root, &[&["test"], run.target].concat());
        // one at a time, since each prints times
        command.args(["--", "--nocapture", "--test-threads", "1"]).args(run.tests);
        command.env(SIDECAR, &sidecar).env(run.variable, (run.share)(times).to_string());
        result = result.and(stages.run(run.name, || shown(&mut command)));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(words: &[&str]) -> Option<u64> {
        part(words).unwrap().map(|(_, times)| times)
    }

    #[test]
    fn a_part_is_asked_for_by_its_flag_and_perhaps_a_number() {
        assert_eq!(times(&["--kills"]), Some(1_000));
        assert_eq!(times(&["--races", "7"]), Some(7));
        assert_eq!(times(&["--executions", "7"]), None);
        assert!(part(&["--kills", "many"]).is_err());
        assert!(part(&["--kills", "7", "--seed", "1"]).is_err());
        assert!(part(&["7", "--kills"]).is_err());
    }
}
