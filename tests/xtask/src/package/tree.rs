//! The tree: `nexus-sidecar/{bin,lib}`, which runs wherever it is put.
//!
//! The program has the guests in it, so that nothing on disk can be exchanged under them. What it loads stands beside it; the
//! launcher in `bin` knows the names of all of that, and says which one is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nexus_launcher::sum::Sum;

use super::modes;
use crate::elf::{Elf, X86_64};
use crate::levels;
use crate::places::{Places, remove};
use crate::process::{cargo, quiet, shown};
use crate::stages::{Stages, note};
use crate::standin;
use crate::toolchain;
use crate::wasmedge::WasmEdge;
use crate::workspace;

/// The name of the tree, of the launcher and of the program.
pub const NAME: &str = "nexus-sidecar";

const LOADER: &str = "ld-linux-x86-64.so.2";

/// Where a loader has the names of what every program is to load, as it stands in it.
const LIST_OF_THE_MACHINE: &[u8] = b"/etc/ld.so.preload";

/// Where the parts of a tree are that was or will be made.
pub struct Parts {
    root: PathBuf,
    /// The program, with the guests in it.
    program: PathBuf,
    /// What it loads, by path.
    libraries: Vec<PathBuf>,
    /// What no file of the tree may name.
    paths_of_here: Vec<String>,
    /// Where everything of a package is made.
    out: PathBuf,
}

impl Parts {
    /// Builds the program that is shipped, in a target directory of its own: its compiler is told to write no path of this machine.
    pub fn build(places: &Places, wasmedge: &WasmEdge, stages: &mut Stages) -> Result<Self> {
        let out = workspace::target(&places.root)?.join("package");
        let guests = out.join("guests");
        stages.run("what is packed with", || toolchain::ensure_packages(&["zstd", "libdeflate-tools"]))?;
        stages.run("guests for levels", || levels::gather(&places.workshop()?, wasmedge, &guests))?;
        let target = out.join("build");
        stages.run("build for the package", || {
            let mut build = cargo(&places.root);
            build.args(["build", "--release", "--locked", "-p", "nexus-sidecar", "--bin", NAME]);
            build.arg("--target-dir").arg(&target).env("NEXUS_GUEST_DIR", &guests).env("NEXUS_PACKAGE", "1");
            build.env("CARGO_ENCODED_RUSTFLAGS", remapped(&places.root, &out)?);
            shown(&mut build)
        })?;
        Self::of(places, target.join("release").join(NAME), &out)
    }

    /// Of a program that is there already.
    pub fn of(places: &Places, program: PathBuf, out: &Path) -> Result<Self> {
        let lib = places.links.join("wasmedge/lib").canonicalize().context("the engine is not set up")?;
        let libraries = closure(&lib, &program)?;
        let mut paths_of_here = vec![text(&places.root)?, text(&places.cache)?, text(&cargo_home()?)?];
        paths_of_here.extend(std::env::var("HOME").ok().filter(|home| home.len() > 1));
        Ok(Self { root: places.root.clone(), program, libraries, paths_of_here, out: out.to_owned() })
    }

    /// The libraries that came from somewhere: neither the stand-in nor the program.
    pub fn foreign_libraries(&self) -> Vec<PathBuf> {
        let is_stand_in =
            |path: &&PathBuf| path.file_name().is_some_and(|name| standin::is_stand_in(&name.to_string_lossy()));
        self.libraries.iter().filter(|path| !is_stand_in(path)).cloned().collect()
    }

    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Puts the tree in its place, and looks at it.
    pub fn assemble(&self) -> Result<PathBuf> {
        let tree = self.out.join(NAME);
        remove(&tree)?;
        let (bin, lib) = (tree.join("bin"), tree.join("lib"));
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(&lib)?;
        place(&self.program, &lib.join(NAME), 0o755)?;
        quiet("stripping", Command::new("strip").arg("--strip-all").arg(lib.join(NAME)))?;
        for library in &self.libraries {
            let name = library.file_name().context("a library has no name")?;
            let to = lib.join(name);
            // Whoever wants more in the process than the launcher loads starts the loader by hand.
            place(library, &to, if name == LOADER { 0o755 } else { 0o644 })?;
            // The loader's own tables are all that a debugger has of it.
            if name != LOADER {
                quiet("stripping", Command::new("strip").arg("--strip-unneeded").arg(&to))?;
            }
        }
        for file in wanting(&lib)? {
            let mut elf = Elf::read(&file)?;
            elf.keep_to_search_paths().with_context(|| format!("{}", file.display()))?;
            fs::write(&file, elf.into_bytes())?;
        }
        without_list_of_the_machine(&lib.join(LOADER))?;
        // The last to be made: it knows what all of them are.
        place(&launcher(&self.root, &lib, &self.out)?, &bin.join(NAME), 0o755)?;
        modes::for_everybody(&tree)?;
        check(&tree)?;
        let bytes = bytes_in(&tree)?;
        note(format!("{}: {:.1} MB in {} files", tree.display(), bytes as f64 / 1e6, files_in(&tree)?.len()));
        Ok(tree)
    }

    /// No file of the tree names a place of the machine that made it.
    pub fn names_no_path_of_here(&self, tree: &Path) -> Result<()> {
        names_none_of(&self.paths_of_here, tree)
    }
}

fn names_none_of(paths: &[String], tree: &Path) -> Result<()> {
    for file in files_in(tree)? {
        let bytes = fs::read(&file)?;
        for path in paths {
            if let Some(at) = bytes.windows(path.len()).position(|window| window == path.as_bytes()) {
                let around = bytes.get(at..(at + 160).min(bytes.len())).unwrap_or_default();
                let shown: String = String::from_utf8_lossy(around).chars().take_while(|c| !c.is_control()).collect();
                bail!("{} names {shown}, a path of this machine", file.display());
            }
        }
    }
    Ok(())
}

/// Flags with which the compiler writes other paths than those of this machine.
fn remapped(root: &Path, out: &Path) -> Result<String> {
    let ways = [(out.to_owned(), "/package"), (cargo_home()?, "/cargo"), (root.to_owned(), "/nexus-sidecar")];
    let flags = ways.iter().map(|(from, to)| Ok(format!("--remap-path-prefix={}={to}", text(from)?)));
    Ok(flags.collect::<Result<Vec<_>>>()?.join("\x1f"))
}

fn cargo_home() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    set.or_else(home).context("neither CARGO_HOME nor HOME is set")
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}

/// What the program loads from the directory, in the end, and the loader.
fn closure(lib: &Path, program: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![lib.join(LOADER)];
    let mut waiting = Elf::read(program)?.needed()?;
    while let Some(name) = waiting.pop() {
        let path = lib.join(&name);
        if !path.is_file() {
            bail!("{} wants {name}, which is not in {}", program.display(), lib.display());
        }
        if !found.contains(&path) {
            waiting.extend(Elf::read(&path)?.needed()?);
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Has a loader look for no list of what every program of the machine is to load first: that is made for the machine's own libc.
fn without_list_of_the_machine(loader: &Path) -> Result<()> {
    let mut bytes = fs::read(loader)?;
    let mut places =
        bytes.windows(LIST_OF_THE_MACHINE.len()).enumerate().filter(|(_, part)| *part == LIST_OF_THE_MACHINE);
    let (Some((at, _)), None) = (places.next(), places.next()) else { bail!("the loader does not name one list") };
    // A path without a letter is that of no file.
    bytes[at..at + LIST_OF_THE_MACHINE.len()].fill(0);
    Ok(fs::write(loader, bytes)?)
}

/// Builds the launcher for the files of a folder as they are now.
fn launcher(root: &Path, lib: &Path, out: &Path) -> Result<PathBuf> {
    let mut lines = Vec::new();
    for path in files_in(lib)? {
        let bytes = fs::read(&path)?;
        let mut sum = Sum::new();
        sum.add(&bytes);
        let name = path.file_name().and_then(|name| name.to_str()).context("a file has no name")?;
        lines.push(format!("{name} {} {:016x}", bytes.len(), sum.end(bytes.len() as u64)));
    }
    let target = out.join("launcher");
    let mut build = cargo(root);
    build.args(["rustc", "--quiet", "--locked", "-p", "nexus-launcher", "--bin", "nexus-launcher"]);
    build.args(["--profile", "launcher", "--features", "bare"]).arg("--target-dir").arg(&target).arg("--");
    // Static, but anywhere in memory, without libc and its start-up code.
    build.args(["-C", "relocation-model=pie", "-C", "target-feature=+crt-static"]);
    for argument in ["-nostdlib", "-nostartfiles", "-static-pie", "-Wl,-z,noexecstack,--build-id=none,--gc-sections"] {
        build.arg("-C").arg(format!("link-arg={argument}"));
    }
    build.env("NEXUS_TREE_FILES", lines.join("\n")).env("CARGO_ENCODED_RUSTFLAGS", remapped(root, out)?);
    quiet("building the launcher", &mut build)?;
    Ok(target.join("launcher/nexus-launcher"))
}

/// The tree is whole, and for this kind of machine, and looks for nothing outside of itself.
fn check(tree: &Path) -> Result<()> {
    let launcher = Elf::read(&tree.join("bin").join(NAME))?;
    if launcher.interpreter()?.is_some() || !launcher.needed()?.is_empty() {
        bail!("the launcher is not static");
    }
    for file in files_in(&tree.join("lib"))? {
        let elf = Elf::read(&file)?;
        if elf.machine()? != X86_64 {
            bail!("{} is for another machine", file.display());
        }
        if !file.ends_with(LOADER) && !elf.keeps_to_search_paths()? {
            bail!("{} may be given a library of the machine's own", file.display());
        }
        for name in elf.needed()? {
            if !tree.join("lib").join(&name).is_file() {
                bail!("{} wants {name}, which is not in the tree", file.display());
            }
        }
    }
    Ok(())
}

/// The files that may want others: all but the loader.
fn wanting(lib: &Path) -> Result<Vec<PathBuf>> {
    Ok(files_in(lib)?.into_iter().filter(|file| !file.ends_with(LOADER)).collect())
}

fn place(from: &Path, to: &Path, mode: u32) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

/// Every file under a directory, in order.
pub fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(&at).with_context(|| format!("cannot list {}", at.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { waiting.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}

pub fn bytes_in(directory: &Path) -> Result<u64> {
    files_in(directory)?.iter().map(|file| Ok(fs::symlink_metadata(file)?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_this_machine_is_found_in_the_middle_of_any_file() {
        let tree = std::env::temp_dir().join(format!("nexus-tree-{}", std::process::id()));
        fs::create_dir_all(tree.join("lib")).unwrap();
        let file = tree.join("lib/program");
        let paths = ["/home/builder/.cargo".to_owned(), "/work/checkout".to_owned()];
        fs::write(&file, b"\0\xff/cargo/registry/x.rs\0/workshop\0").unwrap();
        names_none_of(&paths, &tree).unwrap();
        fs::write(&file, b"\0\xff/home/builder/.cargo/registry/x.rs\0").unwrap();
        let said = names_none_of(&paths, &tree).unwrap_err().to_string();
        assert!(said.contains("names /home/builder/.cargo/registry/x.rs, a path of this machine"), "{said}");
        fs::remove_dir_all(tree).unwrap();
    }
}
