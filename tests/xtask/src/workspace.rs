//! The workspace and the Node client: building them once the machine is ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::digest::Inputs;
use crate::places::Places;
use crate::process::{cargo, quiet, shown};
use crate::stages::advise;

/// Builds what is shipped, in release.
pub fn build(root: &Path) -> Result<()> {
    shown(cargo(root).args(["build", "--release", "-p", "nexus-sidecar", "-p", "nexus-client"]))
}

/// Builds the sidecar whose faults tests and benches can plan.
pub fn build_with_faults(root: &Path) -> Result<()> {
    let package = ["build", "--release", "-p", "nexus-sidecar"];
    shown(cargo(root).args(package).args(["--features", "faults", "--bin", "nexus-sidecar-faults"]))
}

/// Installs the Node client's tools and builds it, unless what it was last built from is what is there now.
pub fn build_node_client(places: &Places) -> Result<()> {
    let root = &places.root;
    let directory = root.join("client-node");
    let locked = directory.join("package-lock.json");
    // npm writes this file last, so it is newer than the lock file exactly when the installation is whole and current.
    let installed = directory.join("node_modules/.package-lock.json");
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if !locked.is_file() || modified(&installed).is_none() || modified(&installed) < modified(&locked) {
        let how = if locked.is_file() { "ci" } else { "install" };
        quiet(
            "installing the Node client's tools",
            &mut npm(root, &[how, "--ignore-scripts", "--no-audit", "--no-fund"]),
        )
        .map_err(|error| {
            error.context(advise("npm cannot install", "check that npm reaches its registry; run this again"))
        })?;
    }
    let digest = node_client_digest(&directory)?;
    let stamp = places.links.join("client-node");
    let built = ["dist/esm/index.js", "dist/cjs/index.js"].iter().all(|file| directory.join(file).is_file());
    if built && fs::read_to_string(&stamp).is_ok_and(|last| last == digest) {
        return Ok(());
    }
    quiet("building the Node client", &mut npm(root, &["run", "--silent", "build"]))?;
    fs::write(stamp, digest).context("cannot note that the Node client is built")
}

/// Of everything that its build reads: the files beside it, and the trees of its source and its build's.
fn node_client_digest(directory: &Path) -> Result<String> {
    let mut inputs = Inputs::new("node client, form 1");
    let mut waiting = vec![directory.to_owned()];
    while let Some(at) = waiting.pop() {
        let mut children = fs::read_dir(&at)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        children.sort();
        for path in children {
            if path.is_file() {
                inputs.add(&path.display().to_string(), &fs::read(&path)?);
            } else if at != directory || ["src", "scripts"].iter().any(|name| path.ends_with(name)) {
                waiting.push(path);
            }
        }
    }
    Ok(inputs.hex())
}

/// npm in the Node client.
pub fn npm(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(words).current_dir(root.join("client-node"));
    command
}

/// The sidecar that `build` made.
pub fn sidecar(root: &Path) -> Result<PathBuf> {
    Ok(target(root)?.join("release/nexus-sidecar"))
}

/// Cargo's target directory.
pub fn target(root: &Path) -> Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&quiet("asking cargo", &mut command)?)?;
    Ok(metadata["target_directory"].as_str().context("cargo does not tell its target directory")?.into())
}
