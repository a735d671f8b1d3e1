//! Debian's packages, in two ways: unpacked into a private directory (any suite, no root, nothing of the system touched),
//! and installed into the system (root).
//!
//! In the private way apt runs with its own lists, cache, configuration and an empty list of installed packages, so that it
//! computes the whole closure, down to libc; it still checks Debian's signatures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::quiet;
use crate::stages::{advise, note};

/// apt with a state of its own.
pub struct PrivateApt {
    directory: PathBuf,
}

impl PrivateApt {
    /// Reads the package lists of one suite of Debian.
    pub fn of_suite(directory: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        if !Path::new(keyring).is_file() {
            return Err(advise(
                format!("{keyring} is missing, so Debian's signatures cannot be checked"),
                "install the package debian-archive-keyring, or set WASMEDGE_DIR to a WasmEdge of your own",
            ));
        }
        let mirror = debian_mirror()?;
        fs::write(directory.join("etc/sources.list"), format!("deb [signed-by={keyring}] {mirror} {suite} main\n"))?;
        fs::write(directory.join("apt.conf"), configuration(directory)?)?;
        let apt = Self { directory: directory.to_owned() };
        quiet(&format!("reading Debian's list of {suite}"), apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// The version that would be taken of a package.
    pub fn candidate(&self, package: &str) -> Result<String> {
        let shown = quiet("asking apt", self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version.with_context(|| format!("apt does not tell a version of {package}"))?.to_owned())
    }

    /// Downloads packages with all that they need and unpacks them under `root`.
    pub fn unpack(&self, packages: &[&str], root: &Path) -> Result<()> {
        let mut install = self.command("apt-get");
        install.args(["install", "--download-only", "--no-install-recommends", "--yes"]).args(packages);
        quiet("downloading", &mut install)?;
        fs::create_dir_all(root)?;
        let archives = self.archives()?;
        if archives.is_empty() {
            bail!("apt downloaded nothing for {packages:?}");
        }
        note(format!("{} packages", archives.len()));
        for archive in archives {
            quiet("unpacking", Command::new("dpkg-deb").arg("-x").arg(&archive).arg(root))?;
        }
        Ok(())
    }

    /// What [`Self::unpack`] has downloaded.
    pub fn archives(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.directory.join("cache/archives"))?.map(|entry| Ok(entry?.path()));
        let mut archives = entries.collect::<Result<Vec<_>>>()?;
        archives.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        archives.sort();
        Ok(archives)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The machine's own settings for fetching (a proxy, say), and nothing else of the system's: not its further kinds of lists.
fn configuration(directory: &Path) -> Result<String> {
    let of_fetching = |line: &&str| line.starts_with("Acquire::") && !line.starts_with("Acquire::IndexTargets");
    let dump = quiet("asking apt", Command::new("apt-config").arg("dump"))?;
    let mut text: String = dump.lines().filter(of_fetching).flat_map(|line| [line, "\n"]).collect();
    let here = directory.display();
    text.push_str(&format!(
        "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\nDir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"{here}/etc/sources.list\";\nDir::State \"{here}\";\nDir::State::lists \"{here}/lists\";\n\
         Dir::State::status \"/dev/null\";\nDir::Cache \"{here}/cache\";\nDir::Log \"{here}\";\n\
         Debug::NoLocking \"true\";\nAPT::Sandbox::User \"\";\nAPT::Install-Recommends \"false\";\n\
         Acquire::Retries \"3\";\nAcquire::Languages \"none\";\n"
    ));
    Ok(text)
}

/// The mirror that this machine already uses for Debian itself. Asked in a way that needs no package lists, which a new
/// machine does not have.
pub fn debian_mirror() -> Result<String> {
    let listed = quiet("asking apt", Command::new("apt-get").args(["update", "--print-uris"])).unwrap_or_default();
    let mirror = listed.lines().find_map(|line| {
        let (mirror, _) = line.strip_prefix('\'')?.split_once("/dists/")?;
        mirror.ends_with("/debian").then(|| mirror.to_owned())
    });
    mirror.ok_or_else(|| {
        advise(
            "apt on this machine has no source of Debian itself",
            "set WASMEDGE_DIR to a directory with WasmEdge 0.17.1 (include/, lib/ and bin/wasmedge)",
        )
    })
}

/// The version of an installed package.
pub fn installed(package: &str) -> Option<String> {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Version}", package]);
    let output = query.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.strip_prefix("installed ").map(str::to_owned)
}

/// Installs packages into the system.
pub fn install(packages: &[&str]) -> Result<()> {
    let line = format!("apt-get install {}", packages.join(" "));
    let user = quiet("asking who we are", Command::new("id").arg("-u"))?;
    if user.trim() != "0" {
        return Err(advise(
            format!("these Debian packages are missing, and only root can install them: {}", packages.join(" ")),
            &format!("run as root: {line}"),
        ));
    }
    note(format!("installing Debian packages: {}", packages.join(" ")));
    if system_install(packages).is_ok() {
        return Ok(());
    }
    // The lists may be missing or old. A source that cannot be reached (not Debian's own, perhaps) need not matter.
    note("reading the package lists first");
    let mut update = Command::new("apt-get");
    update.args(["update", "-o", "DPkg::Lock::Timeout=300"]);
    if let Err(error) = quiet("apt-get update", &mut update) {
        note(format!("apt-get update was not wholly successful: {}", error.to_string().lines().next().unwrap_or("")));
    }
    system_install(packages).map_err(|error| {
        error.context(advise(
            "apt cannot install these packages",
            &format!("on Debian 12 run `apt-get update && {line}` and see what apt says"),
        ))
    })
}

fn system_install(packages: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    quiet("apt-get install", &mut command).map(drop)
}
