//! `cargo xtask release --dry-run`: whether everything that tells a version tells the same one. The version stands in the workspace's
//! manifest; each other place is a copy that somebody may forget.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::digest;
use crate::levels;
use crate::package::{agrees_with_binstall, are_those_of, version};
use crate::places::Places;
use crate::process::quiet;
use crate::stages::note;
use crate::workspace;

/// Looks at the sources, and at the packages if they are there.
pub fn dry_run(places: &Places) -> Result<()> {
    let root = &places.root;
    let version = version(root)?;
    let mut wrong = sources(root, &version)?;
    let out = workspace::target(root)?.join("package");
    if out.join("SHA256SUMS").is_file() {
        wrong.extend(packages(&out, &version)?);
        if !are_those_of(root, &out)? {
            wrong.push("sources have changed since the packages were made; run `cargo xtask package` again".into());
        }
    } else {
        wrong.push("there are no packages; run `cargo xtask package`".into());
    }
    if !wrong.is_empty() {
        bail!("this is no release of {version}:\n{}", wrong.join("\n"));
    }
    note(format!("{version}: sources, changelog, protocol and packages agree"));
    Ok(())
}

/// What does not agree, in words.
fn sources(root: &Path, version: &str) -> Result<Vec<String>> {
    let read = |file: &str| fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"));
    let mut wrong = Vec::new();
    let mut expect = |what: &str, found: Option<&str>, wanted: &str| {
        if found != Some(wanted) {
            wrong.push(format!("{what}: {} instead of {wanted}", found.unwrap_or("nothing")));
        }
    };
    let manifest: Value = serde_json::from_str(&read("client-node/package.json")?)?;
    expect("client-node/package.json", manifest["version"].as_str(), version);
    let locked: Value = serde_json::from_str(&read("client-node/package-lock.json")?)?;
    expect("client-node/package-lock.json", locked["version"].as_str(), version);
    let text = read("client-node/src/version.ts")?;
    expect("client-node/src/version.ts", between(&text, "CLIENT_VERSION = '", "'"), version);
    let text = read("client-node/CHANGELOG.md")?;
    expect("client-node/CHANGELOG.md, its first heading", between(&text, "\n## ", "\n"), version);
    let text = read("sidecar/deploy/kubernetes.yaml")?;
    expect("sidecar/deploy/kubernetes.yaml", between(&text, "nexus-sidecar:", "\n"), version);
    let text = read("README.md")?;
    for (before, after) in
        [("nexus-sidecar-linux-x64-", ".tgz"), ("nexus-sidecar-", "-x86_64-linux"), ("nexus-sidecar_", "_amd64")]
    {
        let mut found = text.match_indices(before).filter_map(|(at, _)| between(&text[at..], before, after));
        let is_version =
            |found: &&str| found.starts_with(|c: char| c.is_ascii_digit()) && !found.contains(char::is_whitespace);
        let found = found.find(is_version);
        expect(&format!("README.md, {before}...{after}"), found, version);
    }
    // The protocol has a version of its own, which specification and clients have to agree on.
    let specification = read("protocol/SPEC.md")?;
    let protocol = between(&specification, "protocol, version ", "\n").context("SPEC.md tells no version")?;
    let text = read("client-node/src/requests.ts")?;
    expect("client-node/src/requests.ts, the protocol", between(&text, "PROTOCOL_VERSION = ", ";"), protocol);
    wrong.extend(agrees_with_binstall(root, version)?);
    Ok(wrong)
}

fn packages(out: &Path, version: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let sums = fs::read_to_string(out.join("SHA256SUMS"))?;
    let names = [
        format!("nexus-sidecar-linux-x64-{version}.tgz"),
        format!("nexus-sidecar-{version}.tgz"),
        format!("nexus-sidecar_{version}_amd64.deb"),
        format!("nexus-sidecar-{version}-x86_64-linux.tar.xz"),
        format!("nexus-sidecar-{version}-x86_64-linux-single.tar.xz"),
    ];
    for name in &names {
        let listed = sums.lines().find_map(|line| line.split_once("  ").filter(|(_, file)| file == name));
        match listed {
            None => wrong.push(format!("{name} is not among the packages")),
            Some((sum, _)) if digest::of_file(&out.join(name)).ok().as_deref() != Some(sum) => {
                wrong.push(format!("{name} is not what SHA256SUMS says"));
            }
            Some(_) => {}
        }
    }
    if !wrong.is_empty() {
        return Ok(wrong);
    }
    for name in &names[..2] {
        let mut show = Command::new("tar");
        let text = quiet("reading a package", show.arg("-xOzf").arg(out.join(name)).arg("package/package.json"))?;
        let manifest: Value = serde_json::from_str(&text)?;
        let tied = &manifest["optionalDependencies"][crate::package::PLATFORM];
        if manifest["version"] != version || !(tied.is_null() || *tied == version) {
            wrong.push(format!("{name} says that it is {}, tied to {tied}", manifest["version"]));
        }
    }
    if let Err(error) = levels::of_program(&out.join("nexus-sidecar/bin/nexus-sidecar")) {
        wrong.push(format!("{error:#}"));
    }
    let mut ask = Command::new("dpkg-deb");
    let told = quiet("reading a package", ask.arg("-f").arg(out.join(&names[2])).arg("Version"))?;
    let program =
        quiet("asking the program", Command::new(out.join("nexus-sidecar/bin/nexus-sidecar")).arg("--version"))?;
    if told.trim() != version || !program.starts_with(&format!("nexus-sidecar {version} ")) {
        wrong.push(format!("the Debian package says {}, the program {}", told.trim(), program.trim()));
    }
    Ok(wrong)
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_agree_and_each_place_is_looked_at() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let version = version(&root).unwrap();
        assert_eq!(sources(&root, &version).unwrap(), Vec::<String>::new());
        assert_eq!(sources(&root, "9.9.9").unwrap().len(), 8);
    }
}
