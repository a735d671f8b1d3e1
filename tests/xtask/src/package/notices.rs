//! What a package owes to others: the licence, the texts of third parties, and a bill of materials (CycloneDX) that names every part.
//!
//! Parts are the crates that are compiled into the program, QuickJS-ng and the C library that are compiled into the guests, and the
//! Debian packages that the libraries beside the program come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::modes;
use crate::apt;
use crate::digest;
use crate::places::{Places, remove};
use crate::process::{cargo, quiet};
use crate::quickjs;
use crate::wasmedge::Origin;

/// What is linked into the guests, beside QuickJS: the Debian packages of it.
const GUEST_LIBRARIES: &[&str] = &["wasi-libc", "libclang-rt-16-dev-wasm32"];

/// One part of what is shipped.
struct Part {
    name: String,
    version: String,
    /// A package URL.
    purl: String,
    /// An SPDX expression, where the part tells one.
    license: Option<String>,
    /// What its authors want to be said.
    texts: Vec<String>,
}

/// Writes LICENSE, THIRD-PARTY.txt and sbom.cdx.json into `out/notices`.
pub fn write(places: &Places, origins: &[Origin], out: &Path, tree: &Path, version: &str) -> Result<PathBuf> {
    let directory = out.join("notices");
    remove(&directory)?;
    fs::create_dir_all(&directory)?;
    fs::copy(places.root.join("LICENSE"), directory.join("LICENSE"))?;
    let mut parts = crates(&places.root)?;
    parts.push(quickjs_part(&places.root)?);
    for package in GUEST_LIBRARIES {
        parts.push(installed(package)?);
    }
    parts.extend(origins.iter().map(debian_part));
    fs::write(directory.join("THIRD-PARTY.txt"), third_party(&parts))?;
    fs::write(directory.join("sbom.cdx.json"), serde_json::to_string_pretty(&bill(&parts, tree, version)?)? + "\n")?;
    modes::for_everybody(&directory)?;
    Ok(directory)
}

/// The crates that the sidecar is linked of, without our own.
fn crates(root: &Path) -> Result<Vec<Part>> {
    let mut ask = cargo(root);
    ask.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Value = serde_json::from_str(&quiet("asking cargo", &mut ask)?)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (package["id"].to_string(), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (node["id"].to_string(), node)).collect();
    let of = |name: &str| packages.values().find(|package| package["name"] == name && package["source"].is_null());
    let mut waiting = vec![of("nexus-sidecar").context("cargo does not know nexus-sidecar")?["id"].to_string()];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        for needed in list(&nodes.get(&id).context("cargo does not resolve a crate")?["deps"]) {
            // Neither what builds it nor what tests it.
            if list(&needed["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                waiting.push(needed["pkg"].to_string());
            }
        }
    }
    let mut parts = Vec::new();
    for package in seen.iter().filter_map(|id| packages.get(id)).filter(|package| !package["source"].is_null()) {
        let text = |field: &str| package[field].as_str().map(str::to_owned);
        let (name, version) = (text("name").context("a crate has no name")?, text("version").context("no version")?);
        let manifest = PathBuf::from(text("manifest_path").context("a crate has no place")?);
        let purl = format!("pkg:cargo/{name}@{version}");
        // An old way of writing an alternative.
        let license = text("license").map(|license| license.replace('/', " OR "));
        let texts = licence_texts(manifest.parent().context("no folder")?)?;
        parts.push(Part { name, version, purl, license, texts });
    }
    parts.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(parts)
}

fn quickjs_part(root: &Path) -> Result<Part> {
    let directory = quickjs::locate(root)?;
    let texts = licence_texts(&directory)?;
    if texts.is_empty() {
        bail!("{} has no licence", directory.display());
    }
    let version = quickjs::version(&directory)?;
    let purl = format!("pkg:github/quickjs-ng/quickjs@v{version}");
    Ok(Part { name: "quickjs-ng".into(), version, purl, license: Some("MIT".into()), texts })
}

/// A Debian package of this system.
fn installed(package: &str) -> Result<Part> {
    let version = apt::installed(package).with_context(|| format!("{package} is not installed"))?;
    let copyright = Path::new("/usr/share/doc").join(package).join("copyright");
    let text = fs::read_to_string(&copyright).with_context(|| format!("cannot read {}", copyright.display()))?;
    let purl = format!("pkg:deb/debian/{package}@{}", version.replace('+', "%2B"));
    Ok(Part { name: package.into(), version, purl, license: None, texts: vec![text] })
}

fn debian_part(origin: &Origin) -> Part {
    Part {
        name: origin.package.clone(),
        version: origin.version.clone(),
        purl: format!("pkg:deb/debian/{}@{}?arch=amd64", origin.package, origin.version.replace('+', "%2B")),
        license: None,
        texts: vec![origin.copyright.clone()],
    }
}

/// The files of a source that say under which conditions it may be used.
fn licence_texts(directory: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths.iter().filter(|path| path.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            texts.push(String::from_utf8_lossy(&fs::read(path)?).into_owned());
        }
    }
    Ok(texts)
}

/// Each text once, under the names of all whose it is.
fn third_party(parts: &[Part]) -> String {
    let mut text = String::from(
        "nexus-sidecar contains parts of others. Each stands below with its version and its licence, then the texts of the licences.\n\n",
    );
    let mut owners: Vec<(&str, Vec<String>)> = Vec::new();
    for part in parts {
        let license = part.license.as_deref().unwrap_or("see its text");
        text.push_str(&format!("{} {}: {license}\n", part.name, part.version));
        for one in &part.texts {
            let owner = format!("{} {}", part.name, part.version);
            match owners.iter_mut().find(|(known, _)| known == one) {
                Some((_, names)) => names.push(owner),
                None => owners.push((one, vec![owner])),
            }
        }
    }
    for (licence, names) in owners {
        text.push_str(&format!(
            "\n{}\n{}\n{}\n\n{}\n",
            "-".repeat(78),
            names.join(", "),
            "-".repeat(78),
            licence.trim_end()
        ));
    }
    text
}

/// CycloneDX 1.5.
fn bill(parts: &[Part], tree: &Path, version: &str) -> Result<Value> {
    let components: Vec<Value> = parts
        .iter()
        .map(|part| {
            let mut component = json!({
                "type": "library", "bom-ref": part.purl, "name": part.name, "version": part.version, "purl": part.purl,
            });
            if let Some(license) = &part.license {
                component["licenses"] = json!([{ "expression": license }]);
            }
            component
        })
        .collect();
    let mut files = Vec::new();
    for file in super::tree::files_in(tree)? {
        let name = file.strip_prefix(tree)?.display().to_string();
        files.push(json!({ "type": "file", "name": name, "hashes": [{ "alg": "SHA-256", "content": digest::of_file(&file)? }] }));
    }
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": { "component": { "type": "application", "bom-ref": "nexus-sidecar", "name": "nexus-sidecar", "version": version,
            "licenses": [{ "license": { "id": "Apache-2.0" } }], "components": files } },
        "components": components,
        "dependencies": [{ "ref": "nexus-sidecar", "dependsOn": parts.iter().map(|part| &part.purl).collect::<Vec<_>>() }],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, text: &str) -> Part {
        Part {
            name: name.into(),
            version: "1".into(),
            purl: format!("pkg:cargo/{name}@1"),
            license: None,
            texts: vec![text.into()],
        }
    }

    #[test]
    fn a_text_that_several_share_is_there_once_under_all_of_their_names() {
        let text = third_party(&[part("a", "MIT text"), part("b", "other"), part("c", "MIT text")]);
        assert_eq!(text.matches("MIT text").count(), 1);
        assert!(text.contains("a 1, c 1\n") && text.contains("b 1: see its text\n"), "{text}");
    }
}
