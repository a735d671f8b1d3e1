//! The two npm packages: the client, and the tree for linux-x64 that it asks for as an optional dependency of its own version.
//! Neither runs a script when it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::modes;
use crate::places::{Places, remove};
use crate::process::quiet;
use crate::workspace;

pub const CLIENT: &str = "@nexus/sidecar";
pub const PLATFORM: &str = "@nexus/sidecar-linux-x64";

/// Packs both; returns the tarballs, the platform's first.
pub fn pack(places: &Places, out: &Path, tree: &Path, notices: &Path, version: &str) -> Result<[PathBuf; 2]> {
    workspace::build_node_client(places)?;
    let npm = out.join("npm");
    remove(&npm)?;
    let platform = platform(&npm.join("sidecar-linux-x64"), tree, notices, version)?;
    let client = client(&places.root, &npm.join("sidecar"), notices, version)?;
    Ok([packed(&platform, out, version)?, packed(&client, out, version)?])
}

fn platform(directory: &Path, tree: &Path, notices: &Path, version: &str) -> Result<PathBuf> {
    for part in ["bin", "lib"] {
        copy_tree(&tree.join(part), &directory.join(part))?;
    }
    texts(directory, notices)?;
    let manifest = json!({
        "name": PLATFORM, "version": version, "license": "Apache-2.0",
        "description": "The program of @nexus/sidecar for Linux on x86-64, whatever its libc",
        "os": ["linux"], "cpu": ["x64"], "engines": { "node": ">=20" }, "preferUnplugged": true,
        "files": ["bin", "lib", "LICENSE", "THIRD-PARTY.txt", "sbom.cdx.json"],
    });
    write_manifest(directory, &manifest)?;
    fs::write(
        directory.join("README.md"),
        format!(
            "# {PLATFORM}\n\nThe program of [{CLIENT}](https://www.npmjs.com/package/{CLIENT}), which installs it. It needs no libc, no compiler and no script.\n"
        ),
    )?;
    Ok(directory.to_owned())
}

fn client(root: &Path, directory: &Path, notices: &Path, version: &str) -> Result<PathBuf> {
    let source = root.join("client-node");
    copy_tree(&source.join("dist"), &directory.join("dist"))?;
    for file in ["README.md", "CHANGELOG.md", "handler.d.ts"] {
        fs::copy(source.join(file), directory.join(file)).with_context(|| format!("client-node has no {file}"))?;
    }
    fs::copy(notices.join("LICENSE"), directory.join("LICENSE"))?;
    fs::copy(source.join("package.json"), directory.join("package.json"))?;
    let mut edit = Command::new("node");
    edit.args(["--eval", PUBLISHED, version, PLATFORM]).current_dir(directory);
    quiet("writing a manifest", &mut edit)?;
    Ok(directory.to_owned())
}

/// Makes the manifest of the client that of its package, by what keeps the order in which it is written: of the conditions of an export
/// the first that holds counts.
const PUBLISHED: &str = "
const fs = require('node:fs');
const [version, platform] = process.argv.slice(1);
const { private: _, scripts, devDependencies, ...manifest } = JSON.parse(fs.readFileSync('package.json', 'utf8'));
Object.assign(manifest, { version, optionalDependencies: { [platform]: version } });
fs.writeFileSync('package.json', JSON.stringify(manifest, null, 2) + '\\n');
";

/// The texts that go with the program.
pub fn texts(directory: &Path, notices: &Path) -> Result<()> {
    for file in ["LICENSE", "THIRD-PARTY.txt", "sbom.cdx.json"] {
        fs::copy(notices.join(file), directory.join(file))?;
    }
    Ok(())
}

fn write_manifest(directory: &Path, manifest: &Value) -> Result<()> {
    Ok(fs::write(directory.join("package.json"), serde_json::to_string_pretty(manifest)? + "\n")?)
}

fn packed(directory: &Path, out: &Path, version: &str) -> Result<PathBuf> {
    modes::for_everybody(directory)?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--ignore-scripts", "--silent", "--pack-destination"]).arg(out).current_dir(directory);
    quiet("packing for npm", &mut pack)?;
    let name = directory.file_name().context("it has no name")?.to_string_lossy();
    let tarball = out.join(format!("nexus-{name}-{version}.tgz"));
    pack_closer(&tarball)?;
    Ok(tarball)
}

/// npm knows gzip alone, and not how little that can make of its input.
fn pack_closer(tarball: &Path) -> Result<()> {
    let (tar, again) = (tarball.with_extension("tar"), tarball.with_extension("tar.gz"));
    fs::rename(tarball, &again)?;
    quiet("unpacking a tarball", Command::new("gzip").args(["--decompress", "--force"]).arg(&again))?;
    quiet("packing it closer", Command::new("libdeflate-gzip").args(["-12", "-f", "-n"]).arg(&tar))?;
    Ok(fs::rename(&again, tarball)?)
}

/// Files, links and modes, as they are.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    fs::create_dir_all(to.parent().context("no parent")?)?;
    quiet("copying", Command::new("cp").arg("-a").arg("--no-preserve=ownership").arg(from).arg(to)).map(drop)
}
