//! The commands: which stages each consists of.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::binaryen::Binaryen;
use crate::guest::{self, Tools};
use crate::places::Places;
use crate::process::{cargo, shown};
use crate::stages::Stages;
use crate::wasmedge::WasmEdge;
use crate::watched::watched;
use crate::{levels, package, promises, recorded, schema, toolchain, workspace};

const FUZZ: &[&str] = &["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "fuzz", "--"];

/// What a model checker tries in every order.
const MODELS: &[&str] = &["test", "--release", "-p", "nexus-sidecar", "--features", "model", "--lib", "model"];

/// Of each reader that is fuzzed from inside.
const FUZZ_CASES: &str = "1000000";

/// Names the sidecar to everything that starts one.
pub const SIDECAR: &str = "NEXUS_SIDECAR_BIN";

/// Until the guest artifact is there and plain cargo commands work. A module that differs from what is recorded of the same sources and
/// tools is an error.
pub fn guest(places: &Places, stages: &mut Stages) -> Result<WasmEdge> {
    let wasmedge = build_guest(places, stages)?;
    recorded::check(places, false)?;
    Ok(wasmedge)
}

/// The same, whatever is recorded.
pub fn build_guest(places: &Places, stages: &mut Stages) -> Result<WasmEdge> {
    let shop = &places.workshop()?;
    let wasmedge = stages.run("WasmEdge", || WasmEdge::ensure(shop))?;
    let runtime = stages.run("engine without compiler", || wasmedge.runtime(shop))?;
    stages.run("guest compiler", toolchain::ensure)?;
    let binaryen = stages.run("Binaryen", || Binaryen::ensure(shop))?;
    wasmedge.link(&places.links, &runtime)?;
    toolchain::link(&places.links)?;
    stages.run("guest", || guest::ensure(shop, &Tools { binaryen: &binaryen, wasmedge: &wasmedge }))?;
    Ok(wasmedge)
}

pub fn setup(places: &Places, stages: &mut Stages) -> Result<()> {
    let _alone = places.lock()?;
    std::thread::scope(|scope| {
        // It needs nothing of the others, waits for the network, and the longer of the guests leaves it a core.
        let client = scope.spawn(|| workspace::build_node_client(places));
        let built = guest(places, stages).and_then(|_| stages.run("build", || workspace::build(&places.root)));
        let client = stages.run("build Node client, begun with the first", || match client.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        built.and(client)
    })
}

pub fn demo(places: &Places, stages: &mut Stages) -> Result<()> {
    setup(places, stages)?;
    let (root, sidecar) = (&places.root, workspace::sidecar(&places.root)?);
    stages.run("Node demonstration", || {
        shown(Command::new("node").arg("client-node/examples/demo.mjs").current_dir(root).env(SIDECAR, &sidecar))
    })?;
    stages.run("Rust demonstration", || {
        let demo = ["run", "--release", "--quiet", "-p", "nexus-client", "--example", "demo"];
        shown(cargo_with(root, &demo).env(SIDECAR, &sidecar))
    })
}

/// Every check is made, also after one has failed.
pub fn test(places: &Places, stages: &mut Stages) -> Result<()> {
    setup(places, stages)?;
    stages.run("build with faults", || workspace::build_with_faults(&places.root))?;
    stages.run("systemd-analyze", toolchain::ensure_systemd_analyze)?;
    let (root, sidecar) = (&places.root, workspace::sidecar(&places.root)?);
    let checks: [(&str, Command); 7] = [
        ("formatting", cargo_with(root, &["fmt", "--all", "--check"])),
        ("lints", cargo_with(root, &["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"])),
        ("tests of the sidecar", cargo_with(root, &["test", "--release", "-p", "nexus-sidecar", "--no-fail-fast"])),
        ("models of the sidecar", cargo_with(root, MODELS)),
        // not in release: they have most of the test programs, and optimizing all of each when it is linked takes minutes
        ("Rust tests", cargo_with(root, &["test", "--workspace", "--exclude", "nexus-sidecar", "--no-fail-fast"])),
        ("Node tests", workspace::npm(root, &["test"])),
        ("fuzzing, briefly", cargo_with(root, &[FUZZ, &["--seconds", "20"]].concat())),
    ];
    let mut failed = Vec::new();
    failed.extend(stages.run("generated files", || schema::check(root)).err());
    failed.extend(stages.run("modules as recorded", || recorded::check(places, true)).err());
    failed.extend(stages.run("promises of the specification", || promises::look(root)).err());
    failed.extend(package::try_briefly(places, stages).err());
    for (name, mut command) in checks {
        if let Err(error) = stages.run(name, || watched(command.env(SIDECAR, &sidecar))) {
            failed.push(error);
        }
    }
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        count => {
            let all: Vec<String> = failed.iter().map(|error| format!("{error:#}")).collect();
            Err(anyhow!("{count} checks failed, see the table\n{}", all.join("\n")))
        }
    }
}

/// Fuzzes for as long as asked.
pub fn fuzz(places: &Places, stages: &mut Stages, words: &[&str]) -> Result<()> {
    setup(places, stages)?;
    let sidecar = workspace::sidecar(&places.root)?;
    let words = if words.is_empty() { &["--seconds", "600"] } else { words };
    stages.run("fuzzing", || shown(cargo_with(&places.root, &[FUZZ, words].concat()).env(SIDECAR, &sidecar)))?;
    // what only the sidecar itself can be handed
    let mut inside = cargo_with(&places.root, &["test", "--release", "-p", "nexus-sidecar", "--lib", "hostile_bytes"]);
    inside.env("NEXUS_FUZZ_CASES", FUZZ_CASES);
    if let Some(seed) = words.iter().skip_while(|word| **word != "--seed").nth(1) {
        inside.env("NEXUS_FUZZ_SEED", seed);
    }
    stages.run("fuzzing the inside", || shown(&mut inside))
}

/// Measures; standard output carries the figures alone.
pub fn bench(places: &Places, stages: &mut Stages, words: &[&str]) -> Result<()> {
    setup(places, stages)?;
    let sidecar = workspace::sidecar(&places.root)?;
    let bench = ["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "bench", "--"];
    let mut command = cargo_with(&places.root, &[&bench, words].concat());
    if words.contains(&"--levels") {
        let shop = places.workshop()?;
        let wasmedge = WasmEdge::ensure(&shop)?;
        let compiled = stages.run("guests for levels", || levels::of_direct(&shop, &wasmedge))?;
        command.env("NEXUS_LEVELS", compiled);
    }
    stages.run("measurements", || shown(command.env(SIDECAR, &sidecar)))
}

pub fn cargo_with(root: &Path, words: &[&str]) -> Command {
    let mut command = cargo(root);
    command.args(words);
    command
}
