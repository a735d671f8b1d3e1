//! The way to a directory, step by step from the root: nobody but its owner and the system may have a say in where it leads.
//!
//! Invariant: each step is taken below the descriptor of the one before, and what a descriptor is of is looked at after it was
//! opened. A directory on the way is the system's or ours, and others may not write to it; where they may but cannot touch what
//! is not theirs (`/tmp`), the next step is the system's or ours. The same holds for symbolic links, which are followed by hand.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};

use super::dir::DirError;

/// As many as the kernel follows.
const MAX_LINKS: usize = 40;
const STEP: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const STICKY: u32 = 0o1000;

/// Where the way has led so far.
struct Way {
    at: OwnedFd,
    /// For messages; links are in it by what they point to.
    path: PathBuf,
    me: u32,
    /// Who owns the root directory is the system, whatever the number: in a user namespace it may be nobody that is known.
    system: u32,
}

/// Opens a directory that can be read, made with all that is missing on its way if there is none. It may be a symbolic link, as
/// systemd's cache directories are.
pub(super) fn to(path: &Path, me: u32) -> Result<File, DirError> {
    let mut way = Way::at_root(me)?;
    let mut steps = steps_of(&std::path::absolute(path)?);
    let mut links = 0;
    while let Some(step) = steps.pop_front() {
        let Some(target) = way.go(&step, steps.is_empty())? else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from(Errno::ELOOP).into());
        }
        if target.is_absolute() {
            way = Way::at_root(me)?;
        }
        let mut before = steps_of(&target);
        before.append(&mut steps);
        steps = before;
    }
    let here = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(&way.at, ".", here, Mode::empty()).map_err(io::Error::from)?))
}

fn steps_of(path: &Path) -> VecDeque<OsString> {
    let steps = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    steps.map(|step| step.as_os_str().to_owned()).collect()
}

impl Way {
    fn at_root(me: u32) -> Result<Self, DirError> {
        let root = File::from(open("/", STEP, Mode::empty()).map_err(io::Error::from)?);
        let found = root.metadata()?;
        let way = Self { at: root.into(), path: "/".into(), me, system: found.uid() };
        way.trust(&way.path, &found)?;
        Ok(way)
    }

    /// Takes one step; a directory that is missing is made. Some: it is a link, and where that leads. `last`: what it leads to
    /// is the caller's to judge, who wants more than can be asked of the way.
    fn go(&mut self, step: &OsStr, last: bool) -> Result<Option<PathBuf>, DirError> {
        let next = self.path.join(step);
        let mut found = fstatat(&self.at, step, AtFlags::AT_SYMLINK_NOFOLLOW);
        if found == Err(Errno::ENOENT) {
            match mkdirat(&self.at, step, Mode::S_IRWXU) {
                // another sidecar may have been faster
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            found = fstatat(&self.at, step, AtFlags::AT_SYMLINK_NOFOLLOW);
        }
        let found = found.map_err(io::Error::from)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
            if !self.is_trusted(found.st_uid) {
                return Err(DirError::Way { path: next, why: "is a link of somebody else's" });
            }
            return Ok(Some(readlinkat(&self.at, step).map_err(io::Error::from)?.into()));
        }
        let opened = File::from(openat(&self.at, step, STEP, Mode::empty()).map_err(io::Error::from)?);
        if !last {
            self.trust(&next, &opened.metadata()?)?;
        }
        (self.at, self.path) = (opened.into(), next);
        Ok(None)
    }

    fn is_trusted(&self, uid: u32) -> bool {
        uid == self.me || uid == 0 || uid == self.system
    }

    fn trust(&self, path: &Path, found: &Metadata) -> Result<(), DirError> {
        let refused = |why| DirError::Way { path: path.to_owned(), why };
        if !self.is_trusted(found.uid()) {
            return Err(refused("belongs to somebody else"));
        }
        // the system's group is the system; any other may have members
        let others = if found.gid() == 0 { 0o002 } else { 0o022 };
        if found.mode() & others != 0 && found.mode() & STICKY == 0 {
            return Err(refused("may be written to by others"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::unistd::geteuid;

    use super::super::scratch::Scratch;
    use super::*;

    fn way(path: &Path) -> Result<File, DirError> {
        to(path, geteuid().as_raw())
    }

    fn refused(path: &Path) -> String {
        match way(path) {
            Err(DirError::Way { path, .. }) => path.file_name().unwrap().to_string_lossy().into_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn make(path: &Path, mode: u32) {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_missing_is_made_for_us_alone() {
        let scratch = Scratch::new();
        let deep = scratch.path().join("a/b/./c/../d");
        assert_eq!(way(&deep).unwrap().metadata().unwrap().ino(), fs::metadata(&deep).unwrap().ino());
        for path in ["a", "a/b", "a/b/c", "a/b/d"] {
            assert_eq!(fs::metadata(scratch.path().join(path)).unwrap().mode() & 0o7777, 0o700, "{path}");
        }
    }

    #[test]
    fn no_directory_on_the_way_may_be_written_to_by_others() {
        let scratch = Scratch::new();
        let inner = scratch.path().join("open/inner");
        fs::create_dir_all(&inner).unwrap();
        for mode in [0o777, 0o757, 0o702] {
            make(&scratch.path().join("open"), mode);
            assert_eq!(refused(&inner), "open", "{mode:o}");
            assert_eq!(refused(&inner.join("new")), "open");
        }
        assert!(!inner.join("new").exists(), "nothing was made on the way");
        // as /tmp is: others may make something there, but not touch what is ours
        make(&scratch.path().join("open"), 0o1777);
        way(&inner).unwrap();
        make(&scratch.path().join("open"), 0o755);
        way(&inner).unwrap();
    }

    #[test]
    fn links_are_followed_by_the_same_rules() {
        let scratch = Scratch::new();
        let at = |name: &str| scratch.path().join(name);
        make(&at("real"), 0o700);
        make(&at("open"), 0o777);
        make(&at("open/inner"), 0o700);
        symlink(at("real"), at("absolute")).unwrap();
        symlink("real", at("relative")).unwrap();
        symlink("relative/../absolute", at("winding")).unwrap();
        symlink(at("open/inner"), at("lured")).unwrap();
        symlink("round", at("round")).unwrap();
        let real = fs::metadata(at("real")).unwrap().ino();
        for name in ["absolute", "relative", "winding"] {
            assert_eq!(way(&at(name)).unwrap().metadata().unwrap().ino(), real, "{name}");
        }
        assert_eq!(refused(&at("lured")), "open");
        assert!(matches!(way(&at("round")), Err(DirError::Io(_))));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        let scratch = Scratch::new();
        let somebody = geteuid().as_raw().wrapping_add(1);
        if somebody == 0 {
            return;
        }
        let theirs = scratch.path().join("a");
        make(&theirs, 0o755);
        // for them our directory is somebody else's; where we are root it is the system's
        match to(&theirs.join("b"), somebody) {
            Err(DirError::Way { .. }) => assert!(!geteuid().is_root()),
            Ok(_) => assert!(geteuid().is_root()),
            Err(other) => panic!("{other:?}"),
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(&theirs, Some(12345), None).unwrap();
            assert_eq!(refused(&theirs.join("c")), "a");
            assert!(!theirs.join("c").exists());
            symlink("c", scratch.path().join("link")).unwrap();
            std::os::unix::fs::lchown(scratch.path().join("link"), Some(12345), None).unwrap();
            assert_eq!(refused(&scratch.path().join("link")), "link");
        }
    }

    #[test]
    fn what_is_no_directory_is_no_way() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("file"), "").unwrap();
        assert!(matches!(way(&scratch.path().join("file")), Err(DirError::Io(_))));
        assert!(matches!(way(&scratch.path().join("file/inner")), Err(DirError::Io(_))));
    }
}
