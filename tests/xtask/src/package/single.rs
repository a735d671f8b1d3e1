//! The single file: the launcher with the tree behind it, for those who take one program out of an archive (`cargo binstall`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nexus_launcher::parcel::{self, Digest, ENTRIES, LABEL_BYTES, Label, MARK};

use super::tree::{NAME, files_in};

/// Writes it from a tree.
pub fn write(tree: &Path, to: &Path) -> Result<()> {
    let launcher = fs::read(tree.join("bin").join(NAME))?;
    let mut files = Vec::new();
    for path in files_in(&tree.join("lib"))? {
        let name = path.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        files.push((name, fs::read(&path)?));
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(to, packed(launcher, &files)?)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o755))?)
}

/// A launcher whose label tells of these files, and they behind it.
fn packed(launcher: Vec<u8>, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    ensure!(files.len() <= ENTRIES, "{} files are more than the launcher looks for", files.len());
    let mut behind = Vec::new();
    for (name, bytes) in files {
        behind
            .extend(parcel::entry(name.as_bytes(), bytes.len() as u64).with_context(|| format!("{name} is too long"))?);
    }
    behind.extend(parcel::entry(b"", 0).context("there is no end")?);
    for (_, bytes) in files {
        behind.extend(bytes);
    }
    let mut digest = Digest::default();
    digest.add(&behind);
    let label = Label { at: launcher.len() as u64, digest: digest.end() }.to_bytes();
    let mut whole = launcher;
    let mut places = whole.windows(MARK.len()).enumerate().filter(|(_, window)| window == MARK);
    let (Some((at, _)), None) = (places.next(), places.next()) else { anyhow::bail!("the launcher has not one label") };
    whole.get_mut(at..at + LABEL_BYTES).context("the label is cut off")?.copy_from_slice(&label);
    whole.extend(behind);
    Ok(whole)
}

/// The name of the archive that holds it, without its ending; also that of the folder in it.
pub fn archive_name(version: &str) -> String {
    format!("{NAME}-{version}-x86_64-linux-single")
}

/// What a template of `cargo binstall` becomes.
pub fn filled_in(template: &str, version: &str, target: &str) -> String {
    let values = [
        ("name", NAME),
        ("bin", NAME),
        ("version", version),
        ("target", target),
        ("archive-suffix", ".tar.xz"),
        ("archive-format", "txz"),
        ("binary-ext", ""),
    ];
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{ {name} }}"), value))
}

/// What the manifest tells `cargo binstall` for one target: the URL, the format, and where the program is in the archive.
pub fn told_to_binstall(root: &Path, version: &str, target: &str) -> Result<[String; 3]> {
    let manifest: toml::Value = toml::from_str(&fs::read_to_string(root.join("sidecar/Cargo.toml"))?)?;
    let told = manifest.get("package").and_then(|package| package.get("metadata")?.get("binstall"));
    let told = told.context("sidecar/Cargo.toml has no [package.metadata.binstall]")?;
    let of = |key: &str| -> Result<String> {
        let own = told.get("overrides").and_then(|all| all.get(target)?.get(key));
        let value = own.or_else(|| told.get(key)).and_then(toml::Value::as_str);
        Ok(filled_in(value.with_context(|| format!("it tells no {key} for {target}"))?, version, target))
    };
    Ok([of("pkg-url")?, of("pkg-fmt")?, of("bin-dir")?])
}

/// Where the manifest says that the program is in what it says is to be fetched: those have to be what `package` writes.
pub fn agrees_with_binstall(root: &Path, version: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let name = archive_name(version);
    for target in ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"] {
        let [url, format, inside] = told_to_binstall(root, version, target)?;
        if !url.ends_with(&format!("/{name}.tar.xz")) || format != "txz" || inside != format!("{name}/{NAME}") {
            wrong.push(format!("sidecar/Cargo.toml sends cargo binstall on {target} to {inside} in {url} ({format})"));
        }
    }
    Ok(wrong)
}

/// The path of the single file within the folder that its archive is packed from.
pub fn place_in(work: &Path, version: &str) -> PathBuf {
    work.join(archive_name(version)).join(NAME)
}

#[cfg(test)]
mod tests {
    use nexus_launcher::parcel::Table;

    use super::*;

    #[test]
    fn what_is_packed_is_found_by_the_label() {
        let mut launcher = b"before".to_vec();
        launcher.extend(MARK);
        launcher.extend([0; LABEL_BYTES - MARK.len()]);
        launcher.extend(b"after");
        let files = [("libc.so.6".to_owned(), vec![1; 10]), (NAME.to_owned(), vec![2; 300])];
        let whole = packed(launcher.clone(), &files).unwrap();
        let label = Label::parse(whole[6..6 + LABEL_BYTES].try_into().unwrap()).unwrap();
        let behind = &whole[label.at as usize..];
        let table = Table::parse(behind).unwrap();
        let found: Vec<_> = table.files().map(|(name, len)| (name.to_vec(), len)).collect();
        assert_eq!(found, [(b"libc.so.6".to_vec(), 10), (NAME.as_bytes().to_vec(), 300)]);
        assert_eq!(behind[table.as_bytes().len()..], [vec![1; 10], vec![2; 300]].concat());
        let mut digest = Digest::default();
        digest.add(behind);
        assert_eq!(digest.end(), label.digest);
        assert!(packed(b"no label".to_vec(), &files).is_err());
        assert!(packed([launcher.clone(), launcher].concat(), &files).is_err(), "two labels");
    }

    #[test]
    fn what_cargo_binstall_is_told_is_what_is_packed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert_eq!(agrees_with_binstall(&root, &super::super::version(&root).unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_template_is_filled_in() {
        let text = filled_in("{ name }-{ version }-{ target }{ archive-suffix }/{ bin }{ binary-ext }", "1.2.3", "t");
        assert_eq!(text, "nexus-sidecar-1.2.3-t.tar.xz/nexus-sidecar");
    }
}
