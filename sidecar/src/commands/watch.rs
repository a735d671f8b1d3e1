//! `run --watch`: the same again whenever a file of it changes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::cli::{JsonSource, Run, Script};

/// Between two looks. A person who has just saved a file does not notice it.
const LOOK_SLICE: Duration = Duration::from_millis(100);

/// Files, and what they looked like.
pub(super) struct Watched {
    files: Vec<(PathBuf, Look)>,
}

/// Time of its last change in any respect, length and number of a file that is there. Whoever sets the time of its content back
/// cannot set that one back.
type Look = Option<(i64, i64, u64, u64)>;

impl Watched {
    /// The handler, and what flags name with an @. Looks at once, so that what changes while they are read is not missed.
    pub(super) fn of(run: &Run) -> Self {
        let script = match &run.file {
            Script::File(path) => Some(path),
            Script::Stdin | Script::Text(_) => None,
        };
        let values = [&run.state, &run.args, &run.scope, &run.extensions];
        let named = values.into_iter().filter_map(|value| match value {
            Some(JsonSource::File(path)) => Some(path),
            Some(JsonSource::Inline(_)) | None => None,
        });
        Self { files: script.into_iter().chain(named).map(|path| (path.clone(), look(path))).collect() }
    }

    /// Waits until one of them looks otherwise, and says which.
    pub(super) fn wait(&self, err: &mut dyn Write) -> io::Result<()> {
        loop {
            thread::sleep(LOOK_SLICE);
            if let Some((path, _)) = self.files.iter().find(|(path, before)| look(path) != *before) {
                writeln!(err, "-- {} has changed", crate::observe::logging::escape(&path.display().to_string()))?;
                return Ok(());
            }
        }
    }
}

fn look(path: &Path) -> Look {
    let found = fs::metadata(path).ok()?;
    Some((found.ctime(), found.ctime_nsec(), found.len(), found.ino()))
}
