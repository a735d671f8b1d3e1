//! The metrics as a file that is written anew again and again, for a collector that reads such files where nobody can reach the
//! sidecar by HTTP.
//!
//! The file is replaced by a whole one, so that a reader never sees half of it; nothing else that stands at its path is touched. It
//! stays when the sidecar ends: its age tells.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nexus_protocol::limits::METRICS_TEXTFILE_MS;

use crate::error::StartError;
use crate::http::Status;

/// While there is no server yet.
const FIRST_LOOK_SLICE: Duration = Duration::from_millis(100);

/// Looks whether the file can be written, and writes it from a thread of its own for as long as the process lives.
pub fn start(path: &Path, status: Arc<Status>) -> Result<(), StartError> {
    let fail = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    try_out(path).map_err(|source| StartError::Textfile { path: path.to_owned(), source })?;
    let path = path.to_owned();
    let life = move || keep(&path, &status);
    thread::Builder::new().name("textfile".into()).spawn(life).map(drop).map_err(fail("cannot start a thread"))
}

fn keep(path: &Path, status: &Status) {
    let mut was_written = true;
    loop {
        // what was there before stays until there is something to tell
        let Some(metrics) = status.metrics() else {
            thread::sleep(FIRST_LOOK_SLICE);
            continue;
        };
        match write(path, &metrics) {
            Ok(()) => was_written = true,
            // once, not every time
            Err(e) if was_written => {
                log::error!("cannot write the metrics to {}: {e}", path.display());
                was_written = false;
            }
            Err(_) => {}
        }
        thread::sleep(Duration::from_millis(METRICS_TEXTFILE_MS));
    }
}

/// A file beside it can be made, and taking its place destroys nothing.
fn try_out(path: &Path) -> io::Result<()> {
    refuse_others(path)?;
    let beside = beside(path)?;
    create(&beside)?;
    fs::remove_file(beside)
}

fn write(path: &Path, metrics: &str) -> io::Result<()> {
    refuse_others(path)?;
    let beside = beside(path)?;
    let replaced = create(&beside).and_then(|mut file| {
        file.write_all(metrics.as_bytes())?;
        // readable for the collector, which is another user, whatever the mask says
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        fs::rename(&beside, path)
    });
    replaced.inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// Only a file, or nothing, is replaced: no device, pipe, folder or link.
fn refuse_others(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(io::Error::new(ErrorKind::AlreadyExists, "what is there is no regular file, and stays")),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// A new file, and nobody else's: what a process of the same number has left goes first.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// A name that collectors pass over, and that no other process has.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidFilename, "it is no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = std::env::temp_dir().join(format!("nexus-textfile-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("nexus.prom");
        try_out(&path).unwrap();
        assert!(!path.exists(), "trying it out makes nothing");
        write(&path, "a 1\n").unwrap();
        write(&path, "a 2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a 2\n");
        let link = dir.join("link");
        symlink(&path, &link).unwrap();
        let pipe = dir.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for other in [&link, &pipe, &dir] {
            assert!(try_out(other).is_err() && write(other, "a 3\n").is_err(), "{}", other.display());
        }
        assert!(link.is_symlink() && !pipe.is_file() && fs::read_to_string(&path).unwrap() == "a 2\n");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        fs::remove_dir_all(dir).unwrap();
    }
}
