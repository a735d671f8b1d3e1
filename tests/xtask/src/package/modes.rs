//! Who may read what is packed: everybody, and nobody but the owner may write it, whatever the umask of the machine that packs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::quiet;

/// As they stand in a listing: folder, file, program, link.
const MODES: [&str; 4] = ["drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x", "lrwxrwxrwx"];

/// Gives everything in a folder, and the folder, one of these modes: what the owner may execute, everybody may.
pub fn for_everybody(folder: &Path) -> Result<()> {
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    set(folder, 0o755)?;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            for_everybody(&path)?;
        } else if kind.is_file() {
            let executed = entry.metadata()?.permissions().mode() & 0o100 != 0;
            set(&path, if executed { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Looks whether a package is as it should be.
pub fn look(package: &Path) -> Result<()> {
    let name = package.file_name().context("it has no name")?.to_string_lossy().into_owned();
    let mut list = if name.ends_with(".deb") { Command::new("dpkg-deb") } else { Command::new("tar") };
    let list = if name.ends_with(".deb") { list.arg("--contents") } else { list.arg("-tvf") };
    let listing = quiet("listing a package", list.arg(package))?;
    ensure!(listing.lines().count() > 0, "{name} is empty");
    match foreign(&listing) {
        Some(line) => anyhow::bail!("in {name}, not everybody may read or somebody else may write {line}"),
        None => Ok(()),
    }
}

fn foreign(listing: &str) -> Option<&str> {
    listing.lines().find(|line| !MODES.iter().any(|mode| line.starts_with(mode)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn whatever_the_umask_was_everybody_may_read_and_only_the_owner_write() {
        let folder = std::env::temp_dir().join(format!("nexus-modes-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        for (name, mode) in [("a/read", 0o600), ("a/b/executed", 0o700), ("written", 0o666), ("both", 0o777)] {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("read", folder.join("a/link")).unwrap();
        for (name, mode) in [("a/b", 0o2775), ("a", 0o700)] {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let package = folder.with_extension("tar");
        let pack = || {
            let mut tar = Command::new("tar");
            quiet("packing", tar.arg("-cf").arg(&package).arg("-C").arg(&folder).arg(".")).unwrap();
        };
        pack();
        assert!(look(&package).is_err());
        for_everybody(&folder).unwrap();
        pack();
        look(&package).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(["a/read", "a/b/executed", "written", "both", "a/b"].map(mode), [0o644, 0o755, 0o644, 0o755, 0o755]);
        fs::remove_dir_all(folder).unwrap();
        fs::remove_file(package).unwrap();
    }

    #[test]
    fn each_line_of_a_listing_is_looked_at() {
        let listing = "drwxr-xr-x 0/0 0 2026-01-01 00:00 a/\n-rw-r----- 0/0 1 2026-01-01 00:00 a/b\n";
        assert!(foreign(listing).unwrap().ends_with("a/b"));
        assert_eq!(foreign("-rw-r--r-- x\nlrwxrwxrwx y -> z\n"), None);
    }
}
