//! Of which sources the packages are: a digest beside them, by which a release that was packed before the last change is told.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::digest::Inputs;

/// The digest stands in this file.
const NAME: &str = "SOURCES";

/// What packages are made from, in the repository.
const PARTS: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    ".cargo",
    "protocol",
    "sidecar",
    "client-node",
    "tests/xtask/src",
];

/// What is made from others of them, or in no package.
const LEFT_OUT: [&str; 5] = ["node_modules", "dist", "test", "test-dist", "target"];

/// The digest of the sources as they are.
pub fn digest(root: &Path) -> Result<String> {
    let mut inputs = Inputs::new("sources of packages, form 1");
    for file in files(root)? {
        let name = file.strip_prefix(root)?.to_str().context("a file's name is not UTF-8")?.to_owned();
        inputs.add(&name, &fs::read(&file)?);
    }
    Ok(inputs.hex())
}

/// Tells beside the packages of what they are.
pub fn tell(out: &Path, digest: &str) -> Result<()> {
    Ok(fs::write(out.join(NAME), format!("{digest}\n"))?)
}

/// Whether the packages are of the sources as they are now.
pub fn are_those_of(root: &Path, out: &Path) -> Result<bool> {
    let told = fs::read_to_string(out.join(NAME)).unwrap_or_default();
    Ok(told.trim() == digest(root)?)
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), PARTS.map(|part| root.join(part)).to_vec());
    while let Some(at) = waiting.pop() {
        if !at.is_dir() {
            files.push(at);
            continue;
        }
        for entry in fs::read_dir(&at).with_context(|| format!("cannot list {}", at.display()))? {
            let entry = entry?;
            if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                waiting.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_of_the_sources_until_any_of_them_changes() {
        let root = std::env::temp_dir().join(format!("nexus-sources-{}", std::process::id()));
        let out = root.join("out");
        for folder in [".cargo", "protocol", "sidecar/deploy", "client-node/dist", "tests/xtask/src", "out"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let sources = ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "sidecar/deploy/unit", "client-node/x.ts"];
        for name in sources {
            fs::write(root.join(name), name).unwrap();
        }
        assert!(!are_those_of(&root, &out).unwrap(), "nothing is told");
        tell(&out, &digest(&root).unwrap()).unwrap();
        fs::write(root.join("client-node/dist/x.js"), "made").unwrap();
        assert!(are_those_of(&root, &out).unwrap());
        for name in sources {
            fs::write(root.join(name), "changed").unwrap();
            assert!(!are_those_of(&root, &out).unwrap(), "{name}");
            fs::write(root.join(name), name).unwrap();
        }
        fs::write(root.join("sidecar/new"), "").unwrap();
        assert!(!are_those_of(&root, &out).unwrap(), "a file more");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn every_part_is_in_the_repository() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(digest(&root).unwrap().len(), 64);
    }
}
