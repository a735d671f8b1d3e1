//! The guest's compiler: Debian's clang for WebAssembly, and libclang, which the bindings to WasmEdge are generated with.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::places::point;
use crate::process::quiet;
use crate::stages::{advise, note};

const PACKAGES: &[&str] = &["clang-16", "lld-16", "wasi-libc", "libclang-rt-16-dev-wasm32", "libclang-16-dev"];
const LIBCLANG: &str = "/usr/lib/llvm-16/lib";

pub const CLANG: &str = "clang-16";

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    ensure_packages(PACKAGES)?;
    let said = quiet("asking clang", Command::new(CLANG).arg("--version")).map_err(|error| {
        error.context(advise("clang-16 does not run", "reinstall it: apt-get install --reinstall clang-16 lld-16"))
    })?;
    note(said.lines().next().unwrap_or_default());
    Ok(())
}

/// Installs systemd's own tools where they are missing: a test asks `systemd-analyze` about the units. Nothing is started.
pub fn ensure_systemd_analyze() -> Result<()> {
    if quiet("asking systemd-analyze", Command::new("systemd-analyze").arg("--version")).is_ok() {
        return Ok(());
    }
    apt::install(&["systemd"])
}

/// Installs what boots a machine of its own, see `soak --systemd`. Nothing is started.
pub fn ensure_nspawn() -> Result<()> {
    ensure_packages(&["systemd", "systemd-container", "dbus"])
}

/// Installs what is missing of these Debian packages.
pub fn ensure_packages(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|name| apt::installed(name).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { apt::install(&missing) }
}

/// What the output of the compiler depends on: the versions of all of it.
pub fn versions() -> BTreeMap<String, String> {
    PACKAGES.iter().map(|package| ((*package).to_owned(), apt::installed(package).unwrap_or_default())).collect()
}

pub fn fingerprint() -> String {
    PACKAGES.iter().map(|package| format!("{package} {}\n", apt::installed(package).unwrap_or_default())).collect()
}

/// Leaves the link that `.cargo/config.toml` gives to bindgen.
pub fn link(links: &Path) -> Result<()> {
    point(&links.join("libclang"), Path::new(LIBCLANG))
}
