//! `cargo xtask package`: what users install, made of what this repository builds.
//!
//! ```text
//!  guests for levels --> sidecar (own build: no path of this machine in it) --+
//!  launcher -------------------------------------------------------------------+--> tree --> npm, .deb, .tar.xz, single file
//!  libraries of the engine, the stand-in for its compiler ---------------------+
//! ```

mod alone;
mod bare;
mod debian;
mod modes;
mod notices;
mod npm;
mod pages;
mod replaced;
mod root;
mod single;
mod sources;
mod tree;
mod trial;

pub use npm::PLATFORM;
pub use single::agrees_with_binstall;
pub use sources::are_those_of;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::digest;
use crate::levels;
use crate::loops;
use crate::places::Places;
use crate::stages::{Stages, note};
use crate::workspace;

/// What `package` made.
pub struct Made {
    pub tree: PathBuf,
    /// The platform's tarball, then the client's.
    pub npm: [PathBuf; 2],
    pub debian: PathBuf,
    pub archive: PathBuf,
    /// The archive of the single file.
    pub single: PathBuf,
}

/// Makes all of it in `target/package`; and, if that is wanted, tries it out on machines that have nothing.
pub fn package(places: &Places, stages: &mut Stages, try_out: bool) -> Result<()> {
    let _alone = places.lock()?;
    let wasmedge = loops::guest(places, stages)?;
    let version = version(&places.root)?;
    // As they are before anything is built of them.
    let sources = sources::digest(&places.root)?;
    let parts = tree::Parts::build(places, &wasmedge, stages)?;
    let out = parts.out().to_owned();
    let tree = stages.run("tree", || parts.assemble())?;
    stages.run("levels of the guests", || levels::of_program(&tree.join("bin").join(tree::NAME)))?;
    stages.run("no path of this machine", || parts.names_no_path_of_here(&tree))?;
    let notices = stages.run("bill of materials", || {
        let origins = wasmedge.origins(&places.workshop()?, &parts.foreign_libraries())?;
        notices::write(places, &origins, &out, &tree, &version)
    })?;
    let npm = stages.run("npm packages", || npm::pack(places, &out, &tree, &notices, &version))?;
    let pages = pages::read(&tree.join("bin").join(tree::NAME))?;
    let contents = debian::Contents {
        root: &places.root,
        tree: &tree,
        notices: &notices,
        pages: &pages,
        version: &version,
        compression: "xz",
    };
    let debian = stages.run("Debian package", || contents.package(&out))?;
    let archive = stages.run("archive", || contents.archive(&out))?;
    let single = stages.run("single file", || contents.single(&out))?;
    let made = Made { tree: tree.clone(), npm, debian, archive, single };
    let packages = [&made.npm[0], &made.npm[1], &made.debian, &made.archive, &made.single];
    packages.iter().try_for_each(|package| modes::look(package))?;
    sum(&out, packages)?;
    sources::tell(&out, &sources)?;
    if try_out {
        stages.run("tree in an empty root", || bare::try_out(&made.tree, &out))?;
        trial::Trial { places, made: &made, contents, out: &out }.run(stages)?;
    }
    Ok(())
}

/// Puts the sidecar that is built already into a tree, and tries that out in a root with nothing else.
pub fn try_briefly(places: &Places, stages: &mut Stages) -> Result<()> {
    let out = workspace::target(&places.root)?.join("tree");
    let parts = tree::Parts::of(places, workspace::sidecar(&places.root)?, &out)?;
    stages.run("tree in an empty root", || bare::try_out(&parts.assemble()?, &out))
}

/// Says how large each is, and writes their digests beside them.
fn sum(out: &Path, files: [&PathBuf; 5]) -> Result<()> {
    let mut sums = String::new();
    for file in files {
        let name = file.file_name().context("it has no name")?.display();
        sums.push_str(&format!("{}  {name}\n", digest::of_file(file)?));
        note(format!("{name}: {:.2} MB", fs::metadata(file)?.len() as f64 / 1e6));
    }
    Ok(fs::write(out.join("SHA256SUMS"), sums)?)
}

/// The version of the workspace, which is that of everything.
pub fn version(root: &Path) -> Result<String> {
    let manifest: toml::Value = toml::from_str(&fs::read_to_string(root.join("Cargo.toml"))?)?;
    let version = manifest["workspace"]["package"]["version"].as_str().context("the workspace has no version")?;
    Ok(version.to_owned())
}
