//! QuickJS-ng's source: a directory of a package that Cargo.lock pins. None of it is copied into the repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{cargo, quiet};
use crate::stages::advise;

const PACKAGE: &str = "rquickjs-sys";

/// The source's directory.
pub fn locate(root: &Path) -> Result<PathBuf> {
    let mut command = cargo(root);
    command.args(["metadata", "--format-version", "1"]);
    let text = quiet("looking for QuickJS-ng", &mut command).map_err(|error| {
        error.context(advise("cargo cannot tell its packages", "check that cargo reaches its registry; run this again"))
    })?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == PACKAGE))
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("cargo does not know {PACKAGE}; tests/xtask/Cargo.toml must name it"))?;
    let source = Path::new(manifest).with_file_name("quickjs");
    if !source.join("quickjs.c").is_file() {
        return Err(advise(
            format!("{} has no quickjs.c", source.display()),
            "remove that package's directory from cargo's registry and run this again",
        ));
    }
    Ok(source)
}

/// The version that its header tells.
pub fn version(source: &Path) -> Result<String> {
    let header = fs::read_to_string(source.join("quickjs.h"))?;
    let part = |name: &str| {
        let line = header.lines().find_map(|line| line.strip_prefix("#define QJS_VERSION_")?.strip_prefix(name));
        line.map(|rest| rest.trim().trim_matches('"').to_owned()).with_context(|| format!("quickjs.h tells no {name}"))
    };
    Ok(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}

/// The C files and headers, by name.
pub fn read(source: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".c") || name.ends_with(".h") {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name, text);
        }
    }
    Ok(files)
}
