//! A directory of private files: ours alone, and so is each file that is read from it.
//!
//! Names are looked up below the directory's descriptor, never by path, and no symbolic link is followed there. Files come
//! to be whole or not at all: written under another name, then renamed. Names with the ending of such temporary files, and
//! names that the caller gives, are all that is ever touched.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::way;
use crate::faults::{self, Point};
use crate::os;

const TEMPORARY: &str = ".tmp";
/// No write takes this long; a temporary file that is older was left by a sidecar that died.
const STALE: Duration = Duration::from_secs(60);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum DirError {
    #[error("it belongs to user {owner}, not to user {me}")]
    Owner { owner: u32, me: u32 },
    #[error("others may use it, its mode is {mode:04o}; make it private with chmod 700")]
    Mode { mode: u32 },
    #[error("{} on the way there {why}", path.display())]
    Way { path: PathBuf, why: &'static str },
    #[error("its file {name:?} is none of a sidecar's ({why}); name another directory")]
    Taken { name: &'static str, why: &'static str },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum OpenError {
    #[error("there is none")]
    Missing,
    /// Whatever has that name, it is nothing that a sidecar of ours wrote.
    #[error("{0}")]
    Foreign(&'static str),
    /// Says nothing about the file.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// See the module.
pub(super) struct Dir {
    /// Also what [`Dir::lock`] locks.
    file: File,
    path: PathBuf,
    me: u32,
}

/// Unlocks the directory when dropped.
pub(super) struct Lock {
    _file: File,
}

impl Dir {
    /// Opens the directory, made if there is none, see [`way`].
    pub fn open(path: &Path) -> Result<Self, DirError> {
        let me = geteuid().as_raw();
        let dir = Self { file: way::to(path, me)?, path: path.to_owned(), me };
        let found = dir.file.metadata()?;
        if found.uid() != dir.me {
            return Err(DirError::Owner { owner: found.uid(), me: dir.me });
        }
        match found.mode() & 0o7777 {
            mode if mode & 0o077 == 0 => Ok(dir),
            mode => Err(DirError::Mode { mode }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Excludes other holders, in all processes, until dropped.
    pub fn lock(&self) -> io::Result<Lock> {
        // a description of its own: locks are by open file description
        let here = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.file, ".", here, Mode::empty()).map_err(io)?);
        file.lock()?;
        Ok(Lock { _file: file })
    }

    /// Opens a file that we wrote.
    pub fn open_file(&self, name: &str) -> Result<PrivateFile, OpenError> {
        // O_NONBLOCK: opening a FIFO must not wait for its other end
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        faults::io(Point::CacheOpen)?;
        let file = match openat(&self.file, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT) => return Err(OpenError::Missing),
            Err(Errno::ELOOP) => return Err(OpenError::Foreign("it is a symbolic link")),
            Err(Errno::EACCES | Errno::EPERM) => return Err(OpenError::Foreign("it may not be read")),
            Err(Errno::ENXIO | Errno::ENODEV) => return Err(OpenError::Foreign("it is a socket or a device")),
            Err(error) => return Err(OpenError::Io(error.into())),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(OpenError::Foreign("it is no regular file"));
        }
        if found.uid() != self.me {
            return Err(OpenError::Foreign("it belongs to another user"));
        }
        if found.mode() & 0o7777 != 0o600 {
            return Err(OpenError::Foreign("its mode is not 0600"));
        }
        // one that was removed after it was opened has none
        if found.nlink() > 1 {
            return Err(OpenError::Foreign("it has a second name"));
        }
        Ok(PrivateFile { file, len: found.len() })
    }

    /// The length of a regular file of ours, whatever else is to be said against it.
    pub fn len_of_own(&self, name: &str) -> Option<u64> {
        let found = fstatat(&self.file, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let is_file = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        u64::try_from(found.st_size).ok().filter(|_| is_file && found.st_uid == self.me)
    }

    /// Writes a file, in place of one that may be there. After a power failure it may be empty or damaged.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, |file| write_all(file, bytes))
    }

    /// Like [`Dir::write`], but it takes a power failure, and the time of the disk.
    pub fn write_synced(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.replace(name, |file| {
            write_all(file, bytes)?;
            faults::io(Point::CacheSync)?;
            file.sync_all()
        })
    }

    fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let mut random = [0; 16];
        os::fill_random(&mut random)?;
        let temporary = format!(".{:032x}{TEMPORARY}", u128::from_ne_bytes(random));
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        faults::io(Point::CacheCreate)?;
        let fd: OwnedFd = openat(&self.file, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io)?;
        let written = write(&mut File::from(fd))
            .and_then(|()| faults::io(Point::CacheRename))
            .and_then(|()| renameat(&self.file, temporary.as_str(), &self.file, name).map_err(io));
        if written.is_err() {
            self.remove(&temporary);
        }
        written
    }

    /// Removes whatever has that name; a directory only if it is empty.
    pub fn remove(&self, name: &str) {
        // what is left if this fails is refused again by the next who reads it
        if unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir) == Err(Errno::EISDIR) {
            let _ = unlinkat(&self.file, name, UnlinkatFlags::RemoveDir);
        }
    }

    /// Tells of every file that is not temporary, and removes temporary ones that a dead sidecar left. `visit` ends it by false.
    pub fn sweep(&self, mut visit: impl FnMut(&str, &Metadata) -> bool) -> io::Result<()> {
        // by descriptor: the name may have come to mean another directory
        for entry in fs::read_dir(format!("/proc/self/fd/{}", self.file.as_raw_fd()))? {
            let entry = entry?;
            let name = entry.file_name();
            // gone by now, or a name that is none of ours
            let (Some(name), Ok(found)) = (name.to_str(), entry.metadata()) else { continue };
            if is_temporary(name) {
                if found.is_file() && found.modified().is_ok_and(is_stale) {
                    self.remove(name);
                }
            } else if found.is_file() && !visit(name, &found) {
                break;
            }
        }
        Ok(())
    }
}

fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    faults::io(Point::CacheWrite)?;
    file.write_all(bytes)
}

fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMPORARY));
    random.is_some_and(|random| random.len() == 32 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Times far in the future come from a clock that was set back since.
fn is_stale(modified: SystemTime) -> bool {
    let distance = SystemTime::now().duration_since(modified).unwrap_or_else(|ahead| ahead.duration());
    distance > STALE
}

fn io(error: Errno) -> io::Error {
    error.into()
}

/// A regular file of mode 0600 that we own.
#[derive(Debug)]
pub(super) struct PrivateFile {
    file: File,
    len: u64,
}

impl PrivateFile {
    /// What it was when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads up to `out` full.
    pub fn read_exact(&mut self, out: &mut [u8]) -> Result<(), OpenError> {
        faults::io(Point::CacheRead)?;
        self.file.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => OpenError::Foreign("it is too short"),
            _ => OpenError::Io(error),
        })
    }

    /// The time of modification is the time of last use, by which the oldest are found.
    pub fn touch(&self) {
        let _ = self.file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::scratch::Scratch;
    use super::*;

    fn files(scratch: &Scratch) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_is_made_private() {
        let scratch = Scratch::new();
        let deep = scratch.path().join("a/b");
        Dir::open(&deep).unwrap();
        for path in [scratch.path().join("a"), deep] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
        }
    }

    #[test]
    fn a_directory_that_others_may_use_is_refused() {
        let scratch = Scratch::new();
        for mode in [0o755, 0o770, 0o701, 0o1777] {
            fs::set_permissions(scratch.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Dir::open(scratch.path()), Err(DirError::Mode { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_link_to_the_directory_is_followed() {
        let scratch = Scratch::new();
        Dir::open(&scratch.path().join("real")).unwrap();
        symlink(scratch.path().join("real"), scratch.path().join("link")).unwrap();
        Dir::open(&scratch.path().join("link")).unwrap().write("a", b"1").unwrap();
        assert!(scratch.path().join("real/a").exists());
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let scratch = Scratch::new();
        let dir = Dir::open(scratch.path()).unwrap();
        fs::create_dir(scratch.path().join("taken")).unwrap();
        assert!(dir.write("taken", b"1").is_err());
        assert!(dir.replace("b", |_| Err(io::ErrorKind::StorageFull.into())).is_err());
        assert_eq!(files(&scratch), ["taken"]);
    }

    #[test]
    fn only_old_temporary_files_are_swept() {
        let scratch = Scratch::new();
        let dir = Dir::open(scratch.path()).unwrap();
        let (old, young) = (format!(".{:032x}.tmp", 1), format!(".{:032x}.tmp", 2));
        for name in [old.as_str(), young.as_str(), ".mine.tmp", "a"] {
            dir.write(name, b"1").unwrap();
        }
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        for name in [old.as_str(), ".mine.tmp", "a"] {
            File::options().write(true).open(scratch.path().join(name)).unwrap().set_modified(hour_ago).unwrap();
        }
        let mut seen = Vec::new();
        dir.sweep(|name, _| {
            seen.push(name.to_owned());
            true
        })
        .unwrap();
        seen.sort();
        assert_eq!(seen, [".mine.tmp", "a"]);
        assert_eq!(files(&scratch), [young.as_str(), ".mine.tmp", "a"]);
    }
}
