//! The Debian package, and the archive that holds the same for everybody else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::modes;
use super::npm::{copy_tree, texts};
use super::pages::{self, Page};
use super::single;
use super::tree::{NAME, bytes_in};
use crate::places::remove;
use crate::process::quiet;

/// Seconds since 1970 of everything in an archive: the same input gives the same bytes.
const TIME: &str = "@1767225600";

const ENVIRONMENT: &str = "\
# Settings of the service, read when it starts; NAME=VALUE, as `nexus-sidecar serve --help` has them. What is to be reloadable
# (systemctl reload nexus-sidecar) stands in the file below instead.
NEXUS_CONFIG=/etc/nexus-sidecar/sidecar.toml
# Users by number that may connect, beside root. They also have to be in the group nexus-sidecar-clients.
#NEXUS_ALLOW_UIDS=0,1000
";

const CONFIGURATION: &str = "\
# Configuration of the service. Everything has a default: `nexus-sidecar serve --check-config` prints what is in force.
#maxInstances = 10
#timeoutMs = 5000
#memoryLimitBytes = 33554432
";

const CONTROL: &str = "\
Package: nexus-sidecar
Version: {version}
Architecture: amd64
Maintainer: The authors of nexus-sidecar <nexus-sidecar@invalid>
Installed-Size: {size}
Section: admin
Priority: optional
Description: sandbox for untrusted JavaScript handlers
 A service that runs the JavaScript of others in pristine WebAssembly instances, with capabilities that are granted for each run.
 It brings its own libraries and depends on no other package.
";

/// The group is made as sysusers.d says, or without systemd by what every Debian has.
const AFTER_INSTALL: &str = "\
#!/bin/sh
set -e
[ \"$1\" = configure ] || exit 0
if command -v systemd-sysusers >/dev/null; then
  systemd-sysusers nexus-sidecar.conf
elif ! getent group nexus-sidecar-clients >/dev/null; then
  groupadd --system nexus-sidecar-clients
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # After an upgrade the running service is the old one still.
  [ -z \"$2\" ] || systemctl try-restart nexus-sidecar.service
fi
exit 0
";

const BEFORE_REMOVAL: &str = "\
#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
  systemctl disable --now nexus-sidecar.socket nexus-sidecar.service || true
  # systemd makes the folder of a socket and leaves it.
  rmdir /run/nexus-sidecar 2>/dev/null || true
fi
exit 0
";

const AFTER_REMOVAL: &str = "\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
if [ \"$1\" = purge ]; then
  rm -rf /var/cache/nexus-sidecar /var/cache/private/nexus-sidecar
  if getent group nexus-sidecar-clients >/dev/null; then groupdel nexus-sidecar-clients; fi
fi
exit 0
";

/// What both are made of.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    pub root: &'a Path,
    pub tree: &'a Path,
    pub notices: &'a Path,
    pub pages: &'a [Page],
    pub version: &'a str,
    /// What dpkg-deb calls the way in which a package is compressed.
    pub compression: &'a str,
}

impl Contents<'_> {
    /// Builds `nexus-sidecar_VERSION_amd64.deb`.
    pub fn package(&self, out: &Path) -> Result<PathBuf> {
        let work = out.join("deb");
        remove(&work)?;
        copy_tree(self.tree, &work.join("usr/lib").join(NAME))?;
        fs::create_dir_all(work.join("usr/bin"))?;
        symlink(format!("../lib/{NAME}/bin/{NAME}"), work.join("usr/bin").join(NAME))?;
        let deploy = self.root.join("sidecar/deploy");
        for (from, to) in [
            (deploy.join("nexus-sidecar.service"), "usr/lib/systemd/system/nexus-sidecar.service"),
            (deploy.join("nexus-sidecar.socket"), "usr/lib/systemd/system/nexus-sidecar.socket"),
            (deploy.join("user/nexus-sidecar.service"), "usr/lib/systemd/user/nexus-sidecar.service"),
            (deploy.join("user/nexus-sidecar.socket"), "usr/lib/systemd/user/nexus-sidecar.socket"),
            (self.root.join("LICENSE"), "usr/share/doc/nexus-sidecar/LICENSE"),
            (self.root.join("README.md"), "usr/share/doc/nexus-sidecar/README.md"),
            (self.root.join("client-node/CHANGELOG.md"), "usr/share/doc/nexus-sidecar/changelog"),
            (self.notices.join("THIRD-PARTY.txt"), "usr/share/doc/nexus-sidecar/copyright"),
            (self.notices.join("sbom.cdx.json"), "usr/share/doc/nexus-sidecar/sbom.cdx.json"),
        ] {
            write(&work.join(to), &fs::read(&from)?, 0o644)?;
        }
        // The user's unit of the repository is for a program in the user's own folder.
        let user = work.join("usr/lib/systemd/user/nexus-sidecar.service");
        let text = fs::read_to_string(&user)?.replace("%h/.local/bin/", "/usr/bin/");
        write(&user, text.as_bytes(), 0o644)?;
        write(&work.join("usr/lib/sysusers.d/nexus-sidecar.conf"), b"g nexus-sidecar-clients -\n", 0o644)?;
        write(&work.join("etc/nexus-sidecar/environment"), ENVIRONMENT.as_bytes(), 0o644)?;
        write(&work.join("etc/nexus-sidecar/sidecar.toml"), CONFIGURATION.as_bytes(), 0o644)?;
        self.add_pages(&work.join("usr/share"))?;
        for file in ["usr/share/man/man1/nexus-sidecar.1", "usr/share/doc/nexus-sidecar/changelog"] {
            quiet("compressing", Command::new("gzip").arg("-9n").arg(work.join(file)))?;
        }
        let size = bytes_in(&work)?.div_ceil(1024).to_string();
        let control = work.join("DEBIAN");
        let text = CONTROL.replace("{version}", self.version).replace("{size}", &size);
        write(&control.join("control"), text.as_bytes(), 0o644)?;
        write(&control.join("conffiles"), b"/etc/nexus-sidecar/environment\n/etc/nexus-sidecar/sidecar.toml\n", 0o644)?;
        for (name, script) in [("postinst", AFTER_INSTALL), ("prerm", BEFORE_REMOVAL), ("postrm", AFTER_REMOVAL)] {
            write(&control.join(name), script.as_bytes(), 0o755)?;
        }
        let package = out.join(format!("{NAME}_{}_amd64.deb", self.version));
        modes::for_everybody(&work)?;
        let mut build = Command::new("dpkg-deb");
        build
            .args(["--build", "--root-owner-group"])
            .arg(format!("-Z{}", self.compression))
            .env("SOURCE_DATE_EPOCH", &TIME[1..]);
        quiet("building the Debian package", build.arg(&work).arg(&package))?;
        Ok(package)
    }

    /// Packs `nexus-sidecar-VERSION-x86_64-linux.tar.xz`: the tree, with the texts, the pages and the units in it.
    pub fn archive(&self, out: &Path) -> Result<PathBuf> {
        let work = out.join("archive");
        let folder = work.join(NAME);
        remove(&work)?;
        copy_tree(self.tree, &folder)?;
        texts(&folder, self.notices)?;
        fs::copy(self.root.join("README.md"), folder.join("README.md"))?;
        fs::copy(self.root.join("client-node/CHANGELOG.md"), folder.join("CHANGELOG.md"))?;
        copy_tree(&self.root.join("sidecar/deploy"), &folder.join("share/deploy"))?;
        self.add_pages(&folder.join("share"))?;
        packed(&work, NAME, &out.join(format!("{NAME}-{}-x86_64-linux.tar.xz", self.version)))
    }

    /// Packs `nexus-sidecar-VERSION-x86_64-linux-single.tar.xz`: one program, with the texts beside it.
    pub fn single(&self, out: &Path) -> Result<PathBuf> {
        let work = out.join("single");
        let name = single::archive_name(self.version);
        remove(&work)?;
        single::write(self.tree, &single::place_in(&work, self.version))?;
        texts(&work.join(&name), self.notices)?;
        packed(&work, &name, &out.join(format!("{name}.tar.xz")))
    }

    fn add_pages(&self, share: &Path) -> Result<()> {
        for (to, text) in [
            ("man/man1/nexus-sidecar.1", pages::manual(self.pages, self.version)),
            ("bash-completion/completions/nexus-sidecar", pages::bash(self.pages)),
            ("zsh/vendor-completions/_nexus-sidecar", pages::zsh(self.pages)),
            ("fish/vendor_completions.d/nexus-sidecar.fish", pages::fish(self.pages)),
        ] {
            write(&share.join(to), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

/// Packs a folder of `work`.
fn packed(work: &Path, folder: &str, archive: &Path) -> Result<PathBuf> {
    modes::for_everybody(&work.join(folder))?;
    remove(archive)?;
    let mut pack = Command::new("tar");
    pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
        .arg(format!("--mtime={TIME}"));
    pack.env("XZ_OPT", "-9").arg("-cJf").arg(archive).arg("-C").arg(work).arg(folder);
    quiet("packing an archive", &mut pack)?;
    Ok(archive.to_owned())
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
