//! Whether each patch of QuickJS has a test that fails without it.
//!
//! A guest is built of all patches but one, and the tests that the head of that one names run on it. So that this takes a
//! minute for each and not ten, the guest is not compiled ahead of time, and the tests are not built anew: they take the
//! module that the environment names, and interpret it. The same tests have to pass on a guest of all patches that is run in this
//! way, so that what fails fails for want of the patch; those that do not, since they look at native stack, are passed over.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::patches::{self, Patch};
use crate::places::{Places, Workshop};
use crate::process::{cargo, shown};
use crate::stages::{Stages, note};
use crate::{guest, loops, workspace};

/// What all tests take a module from.
const MODULE: &str = "NEXUS_TEST_MODULE";

/// A test, and the program that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    name: String,
    /// A file of tests/tests; None: the sidecar's own tests.
    file: Option<String>,
}

/// What becomes of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
}

/// Looks at the patches whose names have one of these words in them; none: at all.
pub fn patches(places: &Places, stages: &mut Stages, words: &[&str]) -> Result<()> {
    let _alone = places.lock()?;
    loops::guest(places, stages)?;
    let shop = places.workshop()?;
    let all = patches::read(&places.root.join("sidecar/guest/patches"))?;
    let chosen: Vec<&Patch> =
        all.iter().filter(|patch| words.is_empty() || words.iter().any(|word| patch.name.contains(word))).collect();
    if chosen.is_empty() {
        bail!("no patch of sidecar/guest/patches is called like {words:?}");
    }
    stages.run("build", || build(&places.root))?;
    let whole = stages.run("a guest of all patches", || guest::interpreted(&shop, None))?;
    let mut unseen = Vec::new();
    for patch in chosen {
        let seen = stages.run(&format!("without {}", patch.name), || look(places, &shop, patch, &whole));
        match seen? {
            Some(told) => note(format!("{}: {told}", patch.name)),
            None => unseen.push(patch.name.as_str()),
        }
    }
    if unseen.is_empty() { Ok(()) } else { bail!("no test was seen to fail without {}", unseen.join(", ")) }
}

/// What shows that the patch is there for something, if anything does.
fn look(places: &Places, shop: &Workshop<'_>, patch: &Patch, whole: &Path) -> Result<Option<String>> {
    let tests = tests_of(&patch.tests);
    if tests.is_empty() {
        bail!("the head of {} names no test", patch.name);
    }
    let without = match guest::interpreted(shop, Some(&patch.name)) {
        Ok(module) => module,
        // what stands on it is tested with it
        Err(error) => return Ok(Some(format!("no guest can be built without it: {error}"))),
    };
    let mut told = Vec::new();
    for test in &tests {
        // some look at the native stack
        if run(places, test, whole)? == Outcome::Failed {
            note(format!("{}: {} is not for a guest that is interpreted", patch.name, test.name));
            continue;
        }
        match run(places, test, &without)? {
            Outcome::Failed => told.push(format!("{} fails", test.name)),
            Outcome::Passed => note(format!("{}: {} passes without it", patch.name, test.name)),
        }
    }
    Ok((!told.is_empty()).then(|| told.join(", ")))
}

fn build(root: &Path) -> Result<()> {
    shown(cargo(root).args(["build", "--release", "--quiet", "-p", "nexus-sidecar", "--bin", "nexus-sidecar"]))?;
    shown(cargo(root).args(["test", "--release", "--quiet", "--no-run", "-p", "nexus-sidecar", "--lib"]))?;
    shown(cargo(root).args(["test", "--release", "--quiet", "--no-run", "-p", "nexus-tests", "--test", "errors"]))
}

fn run(places: &Places, test: &Test, module: &Path) -> Result<Outcome> {
    let mut command = cargo(&places.root);
    command.args(["test", "--release"]);
    match &test.file {
        Some(file) => command.args(["-p", "nexus-tests", "--test", file]),
        None => command.args(["-p", "nexus-sidecar", "--lib"]),
    };
    command.arg(&test.name).env(MODULE, module);
    command.env(loops::SIDECAR, workspace::sidecar(&places.root)?);
    let output = command.output().with_context(|| format!("cannot run {}", test.name))?;
    let told = String::from_utf8_lossy(&output.stdout);
    if !told.contains("running 1 test\n") {
        bail!("there is not one test that is called {}", test.name);
    }
    Ok(if output.status.success() { Outcome::Passed } else { Outcome::Failed })
}

/// The tests that a head names: `first, second (engine), third (tests/errors)`. The place behind some names is that of all.
fn tests_of(told: &str) -> Vec<Test> {
    let mut tests = Vec::new();
    let mut waiting: Vec<String> = Vec::new();
    for word in told.split_whitespace() {
        let bare = word.trim_end_matches(',');
        if let Some(place) = bare.strip_prefix('(').and_then(|place| place.strip_suffix(')')) {
            let file = place.strip_prefix("tests/").map(str::to_owned);
            tests.extend(waiting.drain(..).map(|name| Test { name, file: file.clone() }));
        } else if bare.contains('_') {
            waiting.push(bare.to_owned());
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_names_tests_and_where_they_are() {
        let engine = |name: &str| Test { name: name.to_owned(), file: None };
        let black_box = |name: &str, file: &str| Test { name: name.to_owned(), file: Some(file.to_owned()) };
        let told = "a_b (tests/errors), c_d,\n     e_f (engine), and the gate of `cargo xtask guest`";
        assert_eq!(tests_of(told), [black_box("a_b", "errors"), engine("c_d"), engine("e_f")]);
        assert_eq!(tests_of("nothing of the kind"), []);
    }
}
