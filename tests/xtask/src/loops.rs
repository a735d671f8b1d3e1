//! The commands: which stages each consists of.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::binaryen::Binaryen;
use crate::guest::{self, Tools};
use crate::places::Places;
use crate::process::{cargo, shown};
use crate::stages::Stages;
use crate::wasmedge::WasmEdge;
use crate::{toolchain, workspace};

/// Names the sidecar to everything that starts one.
const SIDECAR: &str = "NEXUS_SIDECAR_BIN";

/// Until the guest artifact is there and plain cargo commands work.
pub fn guest(places: &Places, stages: &mut Stages) -> Result<()> {
    let shop = &places.workshop()?;
    let wasmedge = stages.run("WasmEdge", || WasmEdge::ensure(shop))?;
    stages.run("guest compiler", toolchain::ensure)?;
    let binaryen = stages.run("Binaryen", || Binaryen::ensure(shop))?;
    wasmedge.link(&places.links)?;
    toolchain::link(&places.links)?;
    stages.run("guest", || guest::ensure(shop, &Tools { binaryen: &binaryen, wasmedge: &wasmedge }))
}

pub fn setup(places: &Places, stages: &mut Stages) -> Result<()> {
    let _alone = places.lock()?;
    guest(places, stages)?;
    stages.run("build", || workspace::build(&places.root))?;
    stages.run("build Node client", || workspace::build_node_client(&places.root))
}

pub fn demo(places: &Places, stages: &mut Stages) -> Result<()> {
    setup(places, stages)?;
    let (root, sidecar) = (&places.root, workspace::sidecar(&places.root)?);
    stages.run("Node demonstration", || {
        shown(Command::new("node").arg("client-node/examples/demo.mjs").current_dir(root).env(SIDECAR, &sidecar))
    })?;
    stages.run("Rust demonstration", || {
        let demo = ["run", "--release", "--quiet", "-p", "nexus-client", "--example", "demo"];
        shown(cargo(root).args(demo).env(SIDECAR, &sidecar))
    })
}

pub fn test(places: &Places, stages: &mut Stages) -> Result<()> {
    setup(places, stages)?;
    let (root, sidecar) = (&places.root, workspace::sidecar(&places.root)?);
    stages.run("formatting", || shown(cargo(root).args(["fmt", "--all", "--check"])))?;
    stages.run("lints", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"];
        shown(cargo(root).args(lints))
    })?;
    stages
        .run("Rust tests", || shown(cargo(root).args(["test", "--workspace", "--release"]).env(SIDECAR, &sidecar)))?;
    stages.run("Node tests", || shown(workspace::npm(root).arg("test").env(SIDECAR, &sidecar)))
}

/// Measures; standard output carries the figures alone.
pub fn bench(places: &Places, stages: &mut Stages, json: bool) -> Result<()> {
    setup(places, stages)?;
    let sidecar = workspace::sidecar(&places.root)?;
    stages.run("measurements", || run_bench(&places.root, &sidecar, json))
}

fn run_bench(root: &Path, sidecar: &Path, json: bool) -> Result<()> {
    let mut command = cargo(root);
    command.args(["run", "--release", "--quiet", "-p", "nexus-tests", "--bin", "bench", "--"]);
    if json {
        command.arg("--json");
    }
    shown(command.env(SIDECAR, sidecar))
}
