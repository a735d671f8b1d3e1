//! Where things are: the repository, the cache of costly results outside it, and `.nexus`, whose links tell plain cargo
//! commands where the results are.
//!
//! The cache may be shared by checkouts. Work in it goes on in a [`Workshop`], of which there is one at a time; set-up of one
//! checkout is guarded by a lock of its own.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::stages::{advise, note};

/// The directories of one checkout.
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// Results that outlive `target/`, by the digest of their inputs.
    pub cache: PathBuf,
    /// `.nexus` in the repository.
    pub links: PathBuf,
}

/// The right to change the cache, until it is dropped.
pub struct Workshop<'a> {
    pub places: &'a Places,
    _lock: File,
}

impl Places {
    pub fn open() -> Result<Self> {
        // At run time rather than at compile time: two checkouts may share one target directory.
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.join("../..").canonicalize().context("cannot find the repository; use `cargo xtask`")?;
        let cache = cache_directory()?;
        let links = root.join(".nexus");
        make(&cache.join("tmp"))?;
        make(&links)?;
        Ok(Self { root, cache, links })
    }

    /// Keeps a second set-up of this checkout waiting for as long as the file is held.
    pub fn lock(&self) -> Result<File> {
        lock(&self.links.join("lock"))
    }

    /// Keeps other checkouts from changing the cache.
    pub fn workshop(&self) -> Result<Workshop<'_>> {
        let lock = lock(&self.cache.join("lock"))?;
        // With the lock held, whatever is here was left by a set-up that did not end.
        for entry in fs::read_dir(self.cache.join("tmp"))? {
            remove(&entry?.path())?;
        }
        Ok(Workshop { places: self, _lock: lock })
    }
}

impl Workshop<'_> {
    /// An empty directory for work in progress, on the file system of the cache, so that it can be renamed into place. Its
    /// name is ours alone: a compiler that outlived an earlier set-up must not write into it.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.places.cache.join("tmp").join(format!("{name}-{}", std::process::id()));
        remove(&path)?;
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Moves a finished directory into the cache.
    pub fn finish(&self, scratch: &Path, name: &str) -> Result<PathBuf> {
        let place = self.places.cache.join(name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        remove(&place)?;
        fs::rename(scratch, &place).with_context(|| format!("cannot rename into {}", place.display()))?;
        Ok(place)
    }
}

/// Makes `link` point to `target`, touching nothing if it does already.
pub fn point(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|now| now == target) {
        return Ok(());
    }
    remove(link)?;
    symlink(target, link).with_context(|| format!("cannot make the link {}", link.display()))
}

/// Removes a file, a link or a directory, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file unless it already says so, which would make cargo believe that it changed.
pub fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(|error| {
        advise(
            format!("cannot make the directory {}: {error}", directory.display()),
            "see who owns what it stands in; the place of the cache can be chosen by NEXUS_BUILD_CACHE",
        )
    })
}

fn cache_directory() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = if let Some(chosen) = set("NEXUS_BUILD_CACHE") {
        chosen
    } else {
        let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        base.ok_or_else(|| advise("neither HOME nor XDG_CACHE_HOME is set", "set NEXUS_BUILD_CACHE to a directory"))?
            .join("nexus-sidecar-build")
    };
    make(&path)?;
    path.canonicalize().with_context(|| format!("cannot use {}", path.display()))
}

fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            note(format!("another set-up is at work (lock {}); waiting for it", path.display()));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the cache"),
    }
    Ok(file)
}
