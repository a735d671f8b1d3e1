//! Where a service listens: a socket that only its own user can reach, and that exactly one sidecar serves.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::StartError;

/// Longest path that a Unix socket can have.
const MAX_PATH_BYTES: usize = 107;

/// A bound socket. Dropping it removes the socket; the lock file stays, since removing it would let two sidecars lock two files.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds `path`, whose directory is made if it is missing. A stale socket is removed, but only under the lock that a living
/// sidecar holds for as long as it serves.
pub fn bind(path: &Path) -> Result<(UnixListener, Bound), StartError> {
    let fail = |source: io::Error| StartError::Listen { path: path.to_owned(), source };
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(fail(io::Error::other(format!(
            "the path is longer than the {MAX_PATH_BYTES} bytes that a socket's can have"
        ))));
    }
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(fail)?;
    }
    let lock_path = path.with_extension("lock");
    let lock_file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&lock_path)
        .map_err(fail)?;
    let lock = Flock::lock(lock_file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| StartError::SocketInUse { path: path.to_owned() })?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && found.uid() == nix::unistd::geteuid().as_raw() => {
            fs::remove_file(path).map_err(fail)?;
        }
        Ok(_) => return Err(fail(io::Error::other("something that is not a socket of this user is there"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok((listener, Bound { path: path.to_owned(), _lock: lock }))
}
