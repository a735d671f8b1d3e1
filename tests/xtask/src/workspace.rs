//! The workspace and the Node client: building them once the machine is ready.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{cargo, quiet, shown};
use crate::stages::advise;

/// Builds everything in release.
pub fn build(root: &Path) -> Result<()> {
    shown(cargo(root).args(["build", "--release", "--workspace", "--exclude", "xtask"]))
}

/// Installs the Node client's tools and builds it.
pub fn build_node_client(root: &Path) -> Result<()> {
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
    quiet("building the Node client", &mut npm(root, &["run", "--silent", "build"])).map(drop)
}

/// npm in the Node client.
pub fn npm(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("npm");
    command.args(words).current_dir(root.join("client-node"));
    command
}

/// The sidecar that `build` made.
pub fn sidecar(root: &Path) -> Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&quiet("asking cargo", &mut command)?)?;
    let target = metadata["target_directory"].as_str().context("cargo does not tell its target directory")?;
    Ok(Path::new(target).join("release/nexus-sidecar"))
}
