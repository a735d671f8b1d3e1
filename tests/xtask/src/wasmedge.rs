//! WasmEdge: the library that the sidecar links and the program that compiles the guest.
//!
//! Doors, in this order: one that is there (`WASMEDGE_DIR`, or the system's); Debian's own packages of a newer suite,
//! unpacked into a private prefix; and, for machines that reach neither, an explanation.
//!
//! Debian's newer packages need a newer libc than Debian 12 has, so the prefix brings its own, with its own loader. All
//! libraries stand in one directory, where libLLVM's relative search path finds its own. The sidecar finds those that it loads in
//! another one, without the compiler (`standin.rs`).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::PrivateApt;
use crate::digest::{self, Inputs};
use crate::places::{Workshop, point, remove, write_if_changed};
use crate::process::quiet;
use crate::stages::{advise, note};
use crate::standin;

/// What `wasmedge-sdk` of the workspace is made for.
pub const VERSION: &str = "0.17.1";

/// Debian's suites that have had this version, most stable first.
const SUITES: &[&str] = &["forky", "sid"];

/// What belongs to glibc. Never taken from the prefix unless its loader is used too: a loader and a libc of different
/// versions do not work together.
const GLIBC: &[&str] = &[
    "ld-linux",
    "libc.so",
    "libm.so",
    "libmvec.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "libresolv.so",
    "libutil.so",
    "libanl.so",
    "libnsl.so",
    "libnss_",
    "libBrokenLocale.so",
    "libthread_db.so",
    "libc_malloc_debug.so",
    "libmemusage.so",
    "libpcprofile.so",
];

/// A WasmEdge of the right version.
#[derive(Debug)]
pub struct WasmEdge {
    include: PathBuf,
    lib: PathBuf,
    cli: PathBuf,
    /// The dynamic loader that programs linked with it have to use, if it is not the system's.
    loader: Option<PathBuf>,
}

/// Where a library comes from.
pub struct Origin {
    pub package: String,
    pub version: String,
    pub copyright: String,
}

impl WasmEdge {
    /// Finds it or fetches it.
    pub fn ensure(shop: &Workshop) -> Result<Self> {
        if let Some(found) = present()? {
            note(format!("found in {}", found.lib.display()));
            return Ok(found);
        }
        let prefix = shop.places.cache.join(format!("wasmedge-{VERSION}"));
        if !prefix.join("bin/wasmedge").is_file() {
            fetch(shop)?;
        }
        let wasmedge = Self::of_prefix(&prefix)?;
        wasmedge.check()?;
        note(format!("{VERSION} in {}", prefix.display()));
        Ok(wasmedge)
    }

    fn of_prefix(prefix: &Path) -> Result<Self> {
        let loader = prefix.join("loader");
        Ok(Self {
            include: prefix.join("include"),
            lib: prefix.join("lib"),
            cli: prefix.join("bin/wasmedge"),
            loader: loader.exists().then(|| loader.canonicalize()).transpose()?,
        })
    }

    /// The `wasmedge` program.
    pub fn command(&self) -> Command {
        let Some(loader) = &self.loader else { return Command::new(&self.cli) };
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(&self.lib).arg(&self.cli);
        command
    }

    /// The directory of the libraries that the sidecar loads, made if need be.
    pub fn runtime(&self, shop: &Workshop) -> Result<PathBuf> {
        standin::ensure(shop, &self.lib, self.loader.as_deref())
    }

    /// The Debian packages that the libraries of a runtime come from, with their copyright. They are asked once, and told from then
    /// on by the cache.
    pub fn origins(&self, shop: &Workshop, libraries: &[PathBuf]) -> Result<Vec<Origin>> {
        let mut inputs = Inputs::new("origins, form 1");
        for library in libraries {
            inputs.add(&library.display().to_string(), digest::of_file(&self.original(library)?)?.as_bytes());
        }
        let name = format!("origins-{}", &inputs.hex()[..16]);
        if !shop.places.cache.join(&name).is_dir() {
            let found = SUITES.iter().map(|suite| self.ask_origins(shop, suite, libraries, &name));
            let mut failed = Vec::new();
            if !found.into_iter().any(|result| result.map_err(|error| failed.push(format!("{error:#}"))).is_ok()) {
                let what = format!("nobody tells where the engine's libraries come from.\n{}", failed.join("\n"));
                let remove = format!("remove {} and run this again", self.lib.display());
                return Err(advise(what, &remove));
            }
        }
        let mut origins = Vec::new();
        for path in names_in(&shop.places.cache.join(&name))? {
            let (package, version) = path.split_once('_').context("an origin has no version")?;
            let copyright = fs::read_to_string(shop.places.cache.join(&name).join(&path))?;
            origins.push(Origin { package: package.to_owned(), version: version.to_owned(), copyright });
        }
        Ok(origins)
    }

    fn ask_origins(&self, shop: &Workshop, suite: &str, libraries: &[PathBuf], name: &str) -> Result<()> {
        let work = shop.scratch("origins")?;
        let (root, out) = (work.join("root"), work.join("out"));
        fs::create_dir_all(&out)?;
        let apt = PrivateApt::of_suite(&work.join("apt"), suite)?;
        apt.unpack(&["libwasmedge0"], &root)?;
        let mut waiting = Vec::new();
        for library in libraries {
            waiting.push((library.file_name().context("a library has no name")?.to_owned(), self.original(library)?));
        }
        for archive in apt.archives()? {
            let listed = quiet("listing a package", Command::new("dpkg-deb").arg("-c").arg(&archive))?;
            let files: Vec<PathBuf> = listed
                .lines()
                .filter_map(|line| line.split_whitespace().nth(5)?.strip_prefix("./"))
                .map(|path| root.join(path))
                .filter(|path| path.is_file())
                .collect();
            let before = waiting.len();
            // By its bytes: a newer one of the same name is not what is shipped.
            waiting.retain(|(_, original)| {
                let own = digest::of_file(original).ok();
                !files
                    .iter()
                    .any(|file| own.is_some() && same_size(file, original) && digest::of_file(file).ok() == own)
            });
            if waiting.len() < before {
                let field = |field: &str| {
                    quiet("asking a package", Command::new("dpkg-deb").arg("-f").arg(&archive).arg(field))
                };
                let (package, version) = (field("Package")?.trim().to_owned(), field("Version")?.trim().to_owned());
                let copyright = root.join("usr/share/doc").join(&package).join("copyright");
                fs::copy(&copyright, out.join(format!("{package}_{version}")))
                    .with_context(|| format!("{package} has no copyright"))?;
            }
        }
        if let Some((missing, _)) = waiting.first() {
            bail!("Debian {suite} has no package with this {}", missing.display());
        }
        shop.finish(&out, name)?;
        remove(&work)
    }

    /// A library of a runtime as it was before anything was changed in it.
    fn original(&self, library: &Path) -> Result<PathBuf> {
        let name = library.file_name().context("a library has no name")?;
        self.lib.join(name).canonicalize().with_context(|| format!("there is no {}", name.display()))
    }

    /// Leaves the links that `.cargo/config.toml` and `sidecar/build.rs` point to.
    pub fn link(&self, links: &Path, runtime: &Path) -> Result<()> {
        let here = links.join("wasmedge");
        fs::create_dir_all(here.join("link"))?;
        point(&here.join("include"), &self.include)?;
        point(&here.join("lib"), runtime)?;
        point(&here.join("whole"), &self.lib)?;
        // For cargo, which sees by a file's time whether it is another one.
        write_if_changed(&here.join("runtime"), &format!("{}\n", runtime.display()))?;
        // A directory with this one library: wasmedge-sys puts it on the library path of rustc itself, which crashes when
        // it finds another libc there.
        point(&here.join("link/libwasmedge.so"), &self.lib.join("libwasmedge.so"))?;
        match self.loader.as_deref().and_then(Path::file_name) {
            Some(loader) => point(&here.join("loader"), &runtime.join(loader)),
            None => remove(&here.join("loader")),
        }
    }

    fn check(&self) -> Result<()> {
        let version = header_version(&self.include).context("its headers are missing")?;
        if version != VERSION {
            bail!("its headers are of version {version}");
        }
        let said = quiet("asking wasmedge", self.command().arg("--version"))?;
        if !said.contains(VERSION) {
            bail!("`wasmedge --version` says {said:?}");
        }
        if !self.lib.join("libwasmedge.so").exists() {
            bail!("{} has no libwasmedge.so", self.lib.display());
        }
        Ok(())
    }
}

/// The first door: `WASMEDGE_DIR`, then the places where an installed one stands.
fn present() -> Result<Option<WasmEdge>> {
    let chosen = std::env::var_os("WASMEDGE_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".wasmedge"));
    let installed = ["/usr/local", "/usr"].map(PathBuf::from);
    for base in chosen.iter().cloned().chain(home).chain(installed) {
        let asked_for = chosen.as_ref() == Some(&base);
        if !asked_for && header_version(&base.join("include")).is_none() {
            continue;
        }
        let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
        let lib = ["lib64", "lib", &multiarch].map(|name| base.join(name));
        let lib = lib.into_iter().find(|directory| directory.join("libwasmedge.so").exists());
        let Some(lib) = lib else {
            note(format!("{}: not usable, it has no libwasmedge.so; going on", base.display()));
            continue;
        };
        let found = WasmEdge { include: base.join("include"), lib, cli: base.join("bin/wasmedge"), loader: None };
        match found.check() {
            Ok(()) => {
                let absolute = |path: &Path| path.canonicalize().context("it went away");
                return Ok(Some(WasmEdge {
                    include: absolute(&found.include)?,
                    lib: absolute(&found.lib)?,
                    cli: absolute(&found.cli)?,
                    loader: None,
                }));
            }
            Err(error) => note(format!("{}: not usable, {error:#}; {VERSION} is needed; going on", base.display())),
        }
    }
    Ok(None)
}

/// The second door.
fn fetch(shop: &Workshop) -> Result<()> {
    let mut reasons = Vec::new();
    for suite in SUITES {
        match fetch_from(shop, suite) {
            Ok(()) => return Ok(()),
            Err(error) => {
                note(format!("Debian {suite}: {error:#}"));
                reasons.push(format!("Debian {suite}: {error:#}"));
            }
        }
    }
    Err(advise(
        format!("WasmEdge {VERSION} could not be had.\n{}", reasons.join("\n")),
        &format!(
            "unpack the official release archive of WasmEdge {VERSION} somewhere and set WASMEDGE_DIR to that directory \
             (the one with include/, lib/ or lib64/, and bin/); if the network failed, just run this again"
        ),
    ))
}

fn fetch_from(shop: &Workshop, suite: &str) -> Result<()> {
    let work = shop.scratch("wasmedge")?;
    let apt = PrivateApt::of_suite(&work.join("apt"), suite)?;
    let candidate = apt.candidate("libwasmedge-dev")?;
    if !candidate.starts_with(VERSION) {
        bail!("it has version {candidate} by now");
    }
    note(format!("Debian {suite}: {candidate}, unpacked privately, the system stays as it is"));
    let root = work.join("root");
    apt.unpack(&["libwasmedge-dev", "wasmedge"], &root)?;
    let newer_libc = newer(&apt.candidate("libc6")?, &system_glibc()?);
    let prefix = work.join("prefix");
    fs::create_dir_all(prefix.join("bin"))?;
    fs::rename(root.join("usr/include"), prefix.join("include")).context("the package has no headers")?;
    fs::rename(root.join("usr/bin/wasmedge"), prefix.join("bin/wasmedge")).context("the package has no program")?;
    gather_libraries(&root, &prefix.join("lib"), newer_libc)?;
    if newer_libc {
        let loader = names_in(&prefix.join("lib"))?.into_iter().find(|name| name.starts_with("ld-linux"));
        symlink(Path::new("lib").join(loader.context("libc6 has no loader")?), prefix.join("loader"))?;
    }
    WasmEdge::of_prefix(&prefix)?.check()?;
    shop.finish(&prefix, &format!("wasmedge-{VERSION}"))?;
    remove(&work)
}

/// Every shared library of the unpacked packages, in one directory.
fn gather_libraries(root: &Path, lib: &Path, with_glibc: bool) -> Result<()> {
    fs::create_dir_all(lib)?;
    let mut directories = vec![root.join("lib"), root.join("lib64"), root.join("usr/lib"), root.join("usr/lib64")];
    for name in names_in(&root.join("usr/lib"))? {
        directories.push(root.join("usr/lib").join(&name));
        directories.push(root.join("usr/lib").join(&name).join("lib"));
    }
    for name in names_in(&root.join("lib")).unwrap_or_default() {
        directories.push(root.join("lib").join(&name));
    }
    let mut links = Vec::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        for name in names_in(directory)? {
            let (from, to) = (directory.join(&name), lib.join(&name));
            let library = name.contains(".so.") || name.ends_with(".so");
            let of_glibc = GLIBC.iter().any(|start| name.starts_with(start));
            if !library || (of_glibc && !with_glibc) {
                continue;
            }
            match fs::read_link(&from) {
                Ok(target) => links.push((to, target)),
                Err(_) if from.is_file() => fs::rename(&from, &to)?,
                Err(_) => {}
            }
        }
    }
    // A link's target stands in the same directory now. Some lead to a file of the same name, which is there already.
    for (link, target) in links {
        if fs::symlink_metadata(&link).is_err() {
            symlink(target.file_name().context("a link to nowhere")?, &link)?;
        }
    }
    // A development package may link to a library of a package that was not asked for.
    for name in names_in(lib)? {
        if !lib.join(&name).exists() {
            remove(&lib.join(&name))?;
        }
    }
    Ok(())
}

fn same_size(one: &Path, other: &Path) -> bool {
    matches!((fs::metadata(one), fs::metadata(other)), (Ok(one), Ok(other)) if one.len() == other.len())
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn header_version(include: &Path) -> Option<String> {
    let text = fs::read_to_string(include.join("wasmedge/version.h")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("#define WASMEDGE_VERSION "))?;
    Some(line.trim().trim_matches('"').to_owned())
}

fn system_glibc() -> Result<String> {
    let said = quiet("asking for the libc", Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    Ok(said.trim().trim_start_matches("glibc ").to_owned())
}

/// Whether the first version is newer than the second in its first two numbers, which is all that symbols go by.
fn newer(first: &str, second: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).take(2).collect()
    };
    numbers(first) > numbers(second)
}

#[cfg(test)]
mod tests {
    use super::newer;

    #[test]
    fn libc_versions_compare_by_number_not_by_text() {
        assert!(newer("2.42-5", "2.36"));
        assert!(newer("2.100-1", "2.42"));
        assert!(!newer("2.36-9+deb12u10", "2.36"));
        assert!(!newer("2.36", "2.41"));
    }
}
