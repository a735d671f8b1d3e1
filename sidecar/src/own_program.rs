//! By which path this very program can be executed again.
//!
//! In a package that is the launcher (`sidecar/launcher`), which maps the program and its loader into the process that the kernel
//! made for it, so that the kernel names the launcher as what runs; elsewhere it is the program itself. Either is right: what is
//! executed again is what was executed.
//!
//! It is of this very build or does not start: the kernel executes the file that runs, also when another one stands at its place by
//! now, and a launcher starts nothing but the files that it was packed with.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::os;

/// Always the file that runs, also when another one stands at its place by now.
const RUNNING: &str = "/proc/self/exe";

/// The path, which is absolute. An error where the kernel tells nothing and the file that the program was started as has gone.
pub fn own_program() -> io::Result<PathBuf> {
    if let Ok(path) = fs::read_link(RUNNING) {
        // By its own path it has its own name in lists of processes.
        return Ok(if same_file(&path, Path::new(RUNNING)) { path } else { PathBuf::from(RUNNING) });
    }
    let name = os::started_as().ok_or_else(|| io::Error::other("/proc is not there, and the kernel tells no name"))?;
    let path = std::path::absolute(name)?;
    fs::metadata(&path).map_err(|e| {
        io::Error::new(e.kind(), format!("/proc is not there, and {} cannot be found: {e}", path.display()))
    })?;
    Ok(path)
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_it_names_is_this_program() {
        let path = own_program().unwrap();
        assert!(same_file(&path, Path::new(RUNNING)));
        let listed = Command::new(path).args(["--list", "what_it_names_is_this_program"]).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("what_it_names_is_this_program"));
    }

    #[test]
    fn the_kernels_name_is_known_without_proc() {
        let name = std::path::absolute(os::started_as().unwrap()).unwrap();
        assert!(same_file(&name, Path::new(RUNNING)), "{}", name.display());
    }
}
