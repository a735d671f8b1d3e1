//! A directory of one test, 0700, removed when it is dropped. What tests left that were killed is removed by later ones.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const PREFIX: &str = "nexus-tests-";
/// With a longer one before it the name of a socket, of which a kernel takes 107 bytes, would have no room.
const LONGEST_BASE: usize = 50;
/// Longer than any test takes.
const LEFT_BEHIND: Duration = Duration::from_secs(60 * 60);

/// See the module.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    #[allow(clippy::new_without_default, reason = "a directory on disk is not a default value")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        let all = Some(std::env::temp_dir()).filter(|all| all.as_os_str().len() <= LONGEST_BASE);
        let all = all.unwrap_or_else(|| PathBuf::from("/tmp"));
        SWEPT.call_once(|| sweep(&all, LEFT_BEHIND));
        let path = all.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        // left by an earlier process with this id
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes directories of ours that are old and whose process is gone. Others may be doing the same.
fn sweep(all: &Path, age: Duration) {
    let ours = nix::unistd::getuid().as_raw();
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse::<u32>().ok());
        // of the entry itself: a link is not followed
        let (Some(pid), Ok(found)) = (pid, entry.metadata()) else { continue };
        let old = found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|passed| passed >= age));
        if found.is_dir() && found.uid() == ours && old && !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_test_left_is_removed_and_nothing_else() {
        let dir = TempDir::new();
        let living = format!("{PREFIX}{}-0", std::process::id());
        // no process has this id: it is beyond the kernel's largest
        for name in [&*living, "nexus-tests-4194305-0", "nexus-tests-x-0", "nexus-testament-4194305-0"] {
            fs::create_dir_all(dir.join(name).join("inner")).unwrap();
        }
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        sweep(dir.path(), Duration::from_secs(3600));
        assert_eq!(names().len(), 4, "they are young");
        sweep(dir.path(), Duration::ZERO);
        assert_eq!(names(), ["nexus-testament-4194305-0", &living, "nexus-tests-x-0"]);
    }
}
