//! `cargo xtask mutants`: changes one operator or result at a time where a mistake would reach a tenant, and wants the tests to
//! notice. A mutant that no test catches is a test that is missing, or stands in `mutants.toml` with the reason why it does no
//! harm.
//!
//! The work goes on in a copy of the checkout outside of it, which is kept: so nothing here ever changes a file that somebody
//! edits, and a second run compiles what has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::loops;
use crate::places::{Places, point, remove};
use crate::process::{cargo, quiet, shown_whatever_it_ends_with};
use crate::stages::{Stages, advise, note};

/// Of cargo-mutants. Its names of mutants are what `mutants.toml` holds, so another version may need another list.
const VERSION: &str = "27.1.0";

/// The list of those that may survive.
const LIST: &str = "tests/xtask/mutants.toml";

/// The package that has the guest in it.
const SIDECAR: &str = "nexus-sidecar";

/// A test that takes this long hangs: the tests of a group take seconds, on a machine that is busy too.
const TEST_SECONDS: &str = "120";

/// Files, and the tests that have to notice what is changed in them.
struct Group {
    package: &'static str,
    files: &'static [&'static str],
    /// Parts of the names of tests; all of the library's if there is none.
    tests: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group { package: "nexus-protocol", files: &["protocol/src/capability.rs"], tests: &["capability"] },
    Group {
        package: SIDECAR,
        files: &["sidecar/src/budget.rs", "sidecar/src/share.rs"],
        tests: &["budget", "share::", "resident::"],
    },
    Group { package: SIDECAR, files: &["sidecar/src/pool.rs"], tests: &["pool"] },
    Group { package: SIDECAR, files: &["sidecar/src/cache/handle.rs"], tests: &["cache::handle"] },
    Group {
        package: SIDECAR,
        files: &["sidecar/src/resident/state.rs", "sidecar/src/resident/states.rs", "sidecar/src/engine/state.rs"],
        tests: &["resident::", "engine::state"],
    },
    Group {
        package: SIDECAR,
        files: &["sidecar/src/engine/state_index.rs"],
        tests: &["engine::state", "execution::", "runtime"],
    },
    Group {
        package: SIDECAR,
        files: &["sidecar/src/engine/control.rs"],
        // the instance's: what takes the memory away does so
        tests: &["engine::control", "engine::watchdog", "engine::instance"],
    },
    Group {
        package: SIDECAR,
        files: &[
            "sidecar/src/server/hub.rs",
            "sidecar/src/server/hub/cancel.rs",
            "sidecar/src/server/hub/expiry.rs",
            "sidecar/src/server/hub/listing.rs",
            "sidecar/src/server/hub/mailbox.rs",
            "sidecar/src/server/hub/parking.rs",
            "sidecar/src/server/hub/queue.rs",
            "sidecar/src/server/hub/runs.rs",
            "sidecar/src/server/hub/sessions.rs",
            "sidecar/src/server/hub/suspensions.rs",
            "sidecar/src/server/hub/turns.rs",
            "sidecar/src/server/crew.rs",
            "sidecar/src/server/holdings.rs",
        ],
        tests: &["server::hub", "server::holdings", "server::crew"],
    },
];

/// One line of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    file: String,
    /// As it is reported, without its place.
    mutant: String,
    /// Why it does no harm.
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    survivor: Vec<Listed>,
}

impl List {
    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        let unexplained = list.survivor.iter().find(|listed| listed.reason.trim().is_empty());
        match unexplained {
            Some(listed) => bail!("`{}` has no reason", listed.mutant),
            None => Ok(list),
        }
    }

    fn has(&self, survivor: &Survivor) -> bool {
        self.survivor.iter().any(|listed| listed.file == survivor.file && listed.mutant == survivor.mutant)
    }
}

/// A mutant that no test has caught.
#[derive(Debug, PartialEq, Eq)]
struct Survivor {
    file: String,
    line: u64,
    mutant: String,
}

/// Mutates the files of the groups, or those that `words` name (or parts of their names).
pub fn mutants(places: &Places, stages: &mut Stages, words: &[&str]) -> Result<()> {
    let list = List::parse(&fs::read_to_string(places.root.join(LIST))?).with_context(|| format!("{LIST} is wrong"))?;
    let chosen = chosen(words)?;
    if chosen.iter().any(|(group, _)| group.package == SIDECAR) {
        // its tests run the guest
        loops::guest(places, stages)?;
    }
    let tool = stages.run("cargo-mutants", || ensure(places))?;
    let copy = stages.run("copy of the checkout", || copy(places))?;
    let (mut counts, mut survivors) = (BTreeMap::new(), Vec::new());
    for (group, files) in chosen {
        let outcomes = stages.run(&format!("mutants of {}", files.join(", ")), || run(&tool, &copy, group, &files))?;
        let found = survivors_of(&outcomes, &mut counts)?;
        survivors.extend(found);
    }
    report(places, &list, &counts, &survivors)
}

/// Each group with the files of it that are asked for.
fn chosen(words: &[&str]) -> Result<Vec<(&'static Group, Vec<&'static str>)>> {
    if let Some(flag) = words.iter().find(|word| word.starts_with('-')) {
        bail!("`mutants` takes names of files and not {flag}");
    }
    let unknown =
        words.iter().find(|word| !GROUPS.iter().flat_map(|group| group.files).any(|file| file.contains(**word)));
    if let Some(unknown) = unknown {
        let all: Vec<_> = GROUPS.iter().flat_map(|group| group.files).copied().collect();
        return Err(advise(
            format!("no file that is mutated is named {unknown}"),
            &format!("choose of {}", all.join(", ")),
        ));
    }
    let wanted = |file: &str| words.is_empty() || words.iter().any(|word| file.contains(word));
    let of = |group: &'static Group| -> Vec<&'static str> {
        group.files.iter().copied().filter(|file| wanted(file)).collect()
    };
    Ok(GROUPS.iter().map(|group| (group, of(group))).filter(|(_, files)| !files.is_empty()).collect())
}

/// The tool, built once for all checkouts.
fn ensure(places: &Places) -> Result<PathBuf> {
    let name = format!("cargo-mutants-{VERSION}");
    let program = places.cache.join(&name).join("bin/cargo-mutants");
    if program.is_file() {
        return Ok(program);
    }
    let shop = places.workshop()?;
    let scratch = shop.scratch("cargo-mutants")?;
    let mut install = cargo(&places.root);
    install.args(["install", "cargo-mutants", "--locked", "--version", VERSION, "--root"]).arg(&scratch);
    // its own, so that our packages need not be compiled again
    install.env("CARGO_TARGET_DIR", scratch.join("target"));
    quiet(&format!("building cargo-mutants {VERSION}"), &mut install).map_err(|error| {
        error.context(advise(
            format!("cargo-mutants {VERSION} cannot be installed"),
            "check that cargo reaches crates.io; run this again",
        ))
    })?;
    remove(&scratch.join("target"))?;
    shop.finish(&scratch, &name)?;
    Ok(program)
}

/// All files that git knows or would know, as they are now, with the links to what is built outside.
fn copy(places: &Places) -> Result<PathBuf> {
    let name = places.root.to_string_lossy().trim_start_matches('/').replace('/', "-");
    let copy = places.cache.join("mutants").join(name);
    fs::create_dir_all(&copy)?;
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&places.root);
    let listed = quiet("listing the files of the checkout", &mut list)?;
    let files: Vec<&str> = listed.split('\0').filter(|file| places.root.join(file).is_file()).collect();
    for package in ["protocol", "sidecar", "client-rust", "tests"] {
        for file in files_below(&copy.join(package))? {
            if !places.root.join(file.strip_prefix(&copy)?).is_file() {
                remove(&file)?;
            }
        }
    }
    let mut changed = 0;
    for file in &files {
        let (from, to) = (places.root.join(file), copy.join(file));
        let bytes = fs::read(&from)?;
        // cargo goes by the time of a file
        if fs::read(&to).is_ok_and(|now| now == bytes) {
            continue;
        }
        changed += 1;
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    point(&copy.join(".nexus"), &places.links)?;
    note(format!("{} of {} files have changed, in {}", changed, files.len(), copy.display()));
    Ok(copy)
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten() {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Mutates files of one group; returns what became of each mutant.
fn run(tool: &Path, copy: &Path, group: &Group, files: &[&str]) -> Result<String> {
    let results = copy.join("mutants.out");
    remove(&results)?;
    let mut command = Command::new(tool);
    command.current_dir(copy).args(["mutants", "--in-place", "--colors=never", "--no-shuffle", "--profile", "release"]);
    command.args(["--timeout", TEST_SECONDS, "--package", group.package]);
    for file in files {
        command.args(["--file", file]);
    }
    // to every cargo: only the library and its tests; to these: which of them
    command.args(["--cargo-arg=--lib", "--", "--"]).args(group.tests);
    // as quick to compile as release can be, and nothing that a build beside this one would share
    command.env("CARGO_TARGET_DIR", copy.join("target")).env("CARGO_INCREMENTAL", "1");
    for (setting, value) in [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG", "0"), ("OPT_LEVEL", "1")] {
        command.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    // it ends with an error when a mutant survives, which is for us to judge
    let ended = shown_whatever_it_ends_with(&mut command)?;
    let outcomes = fs::read_to_string(results.join("outcomes.json"));
    outcomes.with_context(|| format!("cargo-mutants ended with {ended} and left no results: see what it said"))
}

/// The mutants that were missed; how many came to what end goes into `counts`.
fn survivors_of(outcomes: &str, counts: &mut BTreeMap<String, u64>) -> Result<Vec<Survivor>> {
    let outcomes: serde_json::Value = serde_json::from_str(outcomes).context("cargo-mutants writes another format")?;
    let mut survivors = Vec::new();
    for outcome in outcomes["outcomes"].as_array().context("there are no outcomes")? {
        let summary = outcome["summary"].as_str().context("an outcome without a summary")?;
        let Some(mutant) = outcome["scenario"].get("Mutant") else {
            if summary != "Success" {
                bail!("the tests fail without any change: {summary}");
            }
            continue;
        };
        *counts.entry(summary.to_owned()).or_default() += 1;
        if summary == "MissedMutant" {
            let file = mutant["file"].as_str().context("a mutant without a file")?;
            let name = mutant["name"].as_str().context("a mutant without a name")?;
            survivors.push(Survivor {
                file: file.to_owned(),
                line: mutant["span"]["start"]["line"].as_u64().unwrap_or_default(),
                mutant: without_place(name).to_owned(),
            });
        }
    }
    Ok(survivors)
}

/// `path/file.rs:12:5: replace a with b in f` without its first word, which changes with every line above it.
fn without_place(name: &str) -> &str {
    name.split_once(": ").map_or(name, |(_, mutant)| mutant)
}

fn report(places: &Places, list: &List, counts: &BTreeMap<String, u64>, survivors: &[Survivor]) -> Result<()> {
    let mut text = String::new();
    for (summary, count) in counts {
        text.push_str(&format!("{summary}: {count}\n"));
    }
    let (listed, unlisted): (Vec<_>, Vec<_>) = survivors.iter().partition(|survivor| list.has(survivor));
    for (title, some) in [("listed", &listed), ("NOT LISTED", &unlisted)] {
        for survivor in some {
            text.push_str(&format!("{title}: {}:{}: {}\n", survivor.file, survivor.line, survivor.mutant));
        }
    }
    let path = places.cache.join("mutants/report.txt");
    fs::write(&path, &text)?;
    print!("{text}");
    note(format!("the same is in {}", path.display()));
    if unlisted.is_empty() {
        return Ok(());
    }
    Err(advise(
        format!("{} mutants survive that {LIST} does not list", unlisted.len()),
        "write a test that fails for each, or list it there with the reason why it does no harm",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: &str = r#"{"outcomes": [
        {"scenario": "Baseline", "summary": "Success"},
        {"scenario": {"Mutant": {"file": "a.rs", "name": "a.rs:3:9: replace f -> u64 with 0", "span": {"start": {"line": 3}}}},
         "summary": "MissedMutant"},
        {"scenario": {"Mutant": {"file": "a.rs", "name": "a.rs:5:9: replace + with - in g", "span": {"start": {"line": 5}}}},
         "summary": "CaughtMutant"}]}"#;

    #[test]
    fn survivors_are_told_by_what_is_changed_and_not_by_its_line() {
        let mut counts = BTreeMap::new();
        let survivors = survivors_of(OUTCOMES, &mut counts).unwrap();
        assert_eq!(counts.values().sum::<u64>(), 2);
        let [survivor] = &*survivors else { panic!("{survivors:?}") };
        assert_eq!((survivor.file.as_str(), survivor.line), ("a.rs", 3));
        let listed = |file: &str, mutant: &str| {
            List::parse(&format!("[[survivor]]\nfile = '{file}'\nmutant = '{mutant}'\nreason = 'none'\n")).unwrap()
        };
        assert!(listed("a.rs", "replace f -> u64 with 0").has(survivor));
        assert!(!listed("b.rs", "replace f -> u64 with 0").has(survivor));
        assert!(!listed("a.rs", "replace f -> u64 with 1").has(survivor));
    }

    #[test]
    fn tests_that_fail_by_themselves_and_survivors_without_a_reason_are_errors() {
        let failing = OUTCOMES.replace("\"Success\"", "\"Failure\"");
        assert!(survivors_of(&failing, &mut BTreeMap::new()).is_err());
        assert!(List::parse("[[survivor]]\nfile = 'a'\nmutant = 'm'\nreason = ' '\n").is_err());
        assert!(List::parse("[[survivor]]\nfile = 'a'\nmutant = 'm'\n").is_err());
    }

    #[test]
    fn the_list_of_this_checkout_is_read_and_names_files_that_are_mutated() {
        let list = List::parse(include_str!("../mutants.toml")).unwrap();
        for listed in &list.survivor {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            assert!(root.join(&listed.file).is_file(), "{} is not there", listed.file);
        }
    }

    #[test]
    fn files_are_chosen_by_parts_of_their_names() {
        let all: usize = chosen(&[]).unwrap().iter().map(|(_, files)| files.len()).sum();
        assert_eq!(all, GROUPS.iter().map(|group| group.files.len()).sum::<usize>());
        let two = chosen(&["pool.rs", "capability"]).unwrap();
        assert_eq!(two.iter().map(|(_, files)| files.len()).sum::<usize>(), 2);
        assert!(chosen(&["nothing"]).is_err() && chosen(&["--all"]).is_err());
    }

    #[test]
    fn every_file_that_is_mutated_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for file in GROUPS.iter().flat_map(|group| group.files) {
            assert!(root.join(file).is_file(), "{file}");
        }
    }
}
