//! The metrics as a file that is written anew again and again, for a collector that reads such files where nobody can reach the
//! sidecar by HTTP.
//!
//! The file is replaced by a whole one, so that a reader never sees half of it. It stays when the sidecar ends: its age tells.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nexus_protocol::limits::METRICS_TEXTFILE_MS;

use crate::error::StartError;
use crate::http::Status;

/// Writes it once, which tells at start whether it can be written, and then from a thread of its own for as long as the process lives.
pub fn start(path: &Path, status: Arc<Status>) -> Result<(), StartError> {
    let fail = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    write(path, &status).map_err(|source| StartError::Textfile { path: path.to_owned(), source })?;
    let path = path.to_owned();
    let life = move || keep(&path, &status);
    thread::Builder::new().name("textfile".into()).spawn(life).map(drop).map_err(fail("cannot start a thread"))
}

fn keep(path: &Path, status: &Status) {
    let mut was_written = true;
    loop {
        thread::sleep(Duration::from_millis(METRICS_TEXTFILE_MS));
        match write(path, status) {
            Ok(()) => was_written = true,
            // once, not every time
            Err(e) if was_written => {
                log::error!("cannot write the metrics to {}: {e}", path.display());
                was_written = false;
            }
            Err(_) => {}
        }
    }
}

fn write(path: &Path, status: &Status) -> io::Result<()> {
    let beside = beside(path)?;
    // readable for the collector, which is another user
    fs::write(&beside, status.metrics().unwrap_or_default())?;
    fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// A name that collectors pass over, and that no other process has.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidFilename, "it is no file"))?;
    let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}
