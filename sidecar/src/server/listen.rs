//! Where a service listens: a socket that only its own user can reach, and that exactly one sidecar serves.
//!
//! The directory has to be the user's own and closed to others, since its owner decides who may replace the socket. A
//! stale socket is removed only under the lock that a living sidecar holds for as long as it serves.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use nix::unistd::geteuid;

use crate::error::StartError;
use crate::exit::ExitCode;
use crate::os;

/// Longest path that a Unix socket can have.
const MAX_PATH_BYTES: usize = 107;

/// Why a path is not listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    #[error("the path has {length} bytes; a socket's can have {MAX_PATH_BYTES}")]
    TooLong { length: usize },
    #[error("the path names no file")]
    NoName,
    #[error("the directory {} is a symbolic link; name the real one", .0.display())]
    LinkedDirectory(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("the directory {} belongs to user {owner}, not to user {us} of this process; run chown {us} on it, or name a directory of its own", .directory.display())]
    ForeignDirectory { directory: PathBuf, owner: u32, us: u32 },
    #[error("the directory {} has mode {mode:04o}, so others may {danger}; run chmod {wanted:04o} on it, or name a directory of its own", .directory.display())]
    OpenDirectory { directory: PathBuf, mode: u32, danger: &'static str, wanted: u32 },
    #[error("something that is not a socket of this user is there")]
    Occupied,
    #[error("the lock file {} is not a file of this user", .0.display())]
    ForeignLock(PathBuf),
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl ListenError {
    /// The path was chosen badly, or the machine refused.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Io { .. } => ExitCode::Internal,
            _ => ExitCode::Config,
        }
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The user of this process: nobody else gets as far as the socket.
    Own,
    /// Others too, as far as the check of each connection lets them.
    Listed,
}

/// A bound socket. Dropping it removes the socket; the lock file stays, since removing it would let two sidecars lock two files.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    inode: u64,
    _lock: Flock<File>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path`, whose directory is made if it is missing.
pub fn bind(path: &Path, audience: Audience) -> Result<(UnixListener, Bound), StartError> {
    let refused = |source: ListenError| StartError::Listen { path: path.to_owned(), source: Box::new(source) };
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        return Err(refused(ListenError::TooLong { length }));
    }
    let name = path.file_name().ok_or_else(|| refused(ListenError::NoName))?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    prepare_directory(directory, audience).map_err(refused)?;
    let mut lock_name = OsString::from(name);
    lock_name.push(".lock");
    let lock = match lock(&directory.join(lock_name)).map_err(refused)? {
        Some(lock) => lock,
        None => return Err(StartError::SocketInUse { path: path.to_owned(), pid: holder(path) }),
    };
    remove_stale(path).map_err(refused)?;
    let io = |doing| move |source| refused(ListenError::Io { doing, path: path.to_owned(), source });
    let listener = UnixListener::bind(path).map_err(io("bind"))?;
    refuse_descriptors(listener.as_fd());
    let mode = match audience {
        Audience::Own => 0o600,
        Audience::Listed => 0o666,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set the mode of"))?;
    let inode = fs::symlink_metadata(path).map_err(io("look at"))?.ino();
    Ok((listener, Bound { path: path.to_owned(), inode, _lock: lock }))
}

/// From whoever connects, and from a parent. Where the kernel does not know of that, they are closed where they are read.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) {
    if let Err(e) = os::refuse_descriptors(socket) {
        log::debug!("peers may send descriptors along: {e}");
    }
}

/// Makes the directory, or checks that nobody else can put something into it, or reach the socket.
fn prepare_directory(directory: &Path, audience: Audience) -> Result<(), ListenError> {
    let io = |doing| move |source| ListenError::Io { doing, path: directory.to_owned(), source };
    let wanted = match audience {
        Audience::Own => 0o700,
        Audience::Listed => 0o711,
    };
    let found = match fs::symlink_metadata(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(io("make"))?;
            fs::set_permissions(directory, fs::Permissions::from_mode(wanted)).map_err(io("set the mode of"))?;
            fs::symlink_metadata(directory).map_err(io("look at"))?
        }
        found => found.map_err(io("look at"))?,
    };
    if found.is_symlink() {
        return Err(ListenError::LinkedDirectory(directory.to_owned()));
    }
    if !found.is_dir() {
        return Err(ListenError::NotADirectory(directory.to_owned()));
    }
    let us = geteuid().as_raw();
    if found.uid() != us {
        return Err(ListenError::ForeignDirectory { directory: directory.to_owned(), owner: found.uid(), us });
    }
    let mode = found.mode() & 0o7777;
    let (forbidden, danger) = match audience {
        Audience::Own => (0o077, "reach or replace the socket"),
        Audience::Listed => (0o022, "replace the socket"),
    };
    if mode & forbidden != 0 {
        return Err(ListenError::OpenDirectory { directory: directory.to_owned(), mode, danger, wanted });
    }
    Ok(())
}

/// None: another process holds it.
fn lock(path: &Path) -> Result<Option<Flock<File>>, ListenError> {
    let io = |doing| move |source| ListenError::Io { doing, path: path.to_owned(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(io("open"))?;
    let found = file.metadata().map_err(io("look at"))?;
    if !found.is_file() || found.uid() != geteuid().as_raw() {
        return Err(ListenError::ForeignLock(path.to_owned()));
    }
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(io("lock")(e.into())),
    }
}

/// The process that listens there, if it does yet. Nothing waits for it: it may be stopped, and its queue full.
fn holder(path: &Path) -> Option<i32> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(stream.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    getsockopt(&stream, sockopt::PeerCredentials).ok().map(|peer| peer.pid())
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |doing| move |source| ListenError::Io { doing, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && found.uid() == geteuid().as_raw() => {
            fs::remove_file(path).map_err(io("remove the stale socket"))
        }
        Ok(_) => Err(ListenError::Occupied),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io("look at")(e)),
    }
}
