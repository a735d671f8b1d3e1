//! Binaryen's optimizer, from npm: Debian's is too old for what clang writes. Its version and digest are pinned by the
//! lock file beside this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::places::Workshop;
use crate::process::{exists, quiet};
use crate::stages::{advise, note};

/// As in `binaryen/package.json`.
pub const VERSION: &str = "132.0.0";

/// `wasm-opt`, run by node.
pub struct Binaryen {
    wasm_opt: PathBuf,
}

impl Binaryen {
    pub fn ensure(shop: &Workshop) -> Result<Self> {
        if !exists("node") || !exists("npm") {
            return Err(advise("node and npm are not on the search path", "install Node.js 20 or later, with npm"));
        }
        let name = format!("binaryen-{VERSION}");
        let wasm_opt = |directory: &Path| directory.join("node_modules/binaryen/bin/wasm-opt");
        if !wasm_opt(&shop.places.cache.join(&name)).is_file() {
            let scratch = shop.scratch("binaryen")?;
            let pinned = shop.places.root.join("tests/xtask/binaryen");
            for file in ["package.json", "package-lock.json"] {
                fs::copy(pinned.join(file), scratch.join(file)).with_context(|| format!("cannot copy {file}"))?;
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&scratch);
            quiet("downloading Binaryen", &mut npm).map_err(|error| {
                error.context(advise(
                    "npm cannot install Binaryen",
                    "check that npm reaches its registry; run this again",
                ))
            })?;
            shop.finish(&scratch, &name)?;
        }
        let binaryen = Self { wasm_opt: wasm_opt(&shop.places.cache.join(&name)) };
        let said = quiet("asking wasm-opt", binaryen.command().arg("--version"))?;
        note(said.trim());
        Ok(binaryen)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(&self.wasm_opt);
        command
    }
}
