//! Names of segments, and what becomes of those that nobody is left to remove.
//!
//! `nexus-sidecar.PID.RANDOM`: 128 random bits, so that nobody else can know the name before it is told, and the process that
//! has to remove it, so that the next sidecar can tell which names are left over.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nexus_protocol::message::{ARENA_PREFIX, arena_owner};
use nix::errno::Errno;
use nix::sys::signal;
use nix::unistd::Pid;

use super::arena::directory;
use super::maker::Named;
use crate::os;

/// A name. Dropping it removes the file.
#[derive(Debug)]
pub struct Name(String);

impl Name {
    pub fn new() -> io::Result<Self> {
        let mut random = [0; 16];
        os::fill_random(&mut random)?;
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{ARENA_PREFIX}{}.{random}", std::process::id())))
    }

    /// As shm_open wants it.
    pub fn os_id(&self) -> String {
        format!("/{}", self.0)
    }

    pub fn path(&self) -> PathBuf {
        directory().join(&self.0)
    }
}

impl Named for Name {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // a client may have removed it, and then it is gone as well
        let _ = fs::remove_file(self.path());
    }
}

/// Removes what sidecars have left that died between making a segment and unlinking it: files with our kind of name, of our
/// own user, whose process is no more, and which nobody holds: to a sidecar in another container the number may say nothing, or
/// be its own. To be called before the first segment is made. How many.
pub fn sweep() -> usize {
    sweep_in(&directory())
}

fn sweep_in(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let ours = nix::unistd::geteuid().as_raw();
    let mut removed = 0;
    for entry in entries.flatten() {
        let is_left = entry.file_name().to_str().and_then(arena_owner).map(Pid::from_raw).is_some_and(is_dead);
        // of the link itself, if it is one: nothing of ours is
        let is_ours = || fs::symlink_metadata(entry.path()).is_ok_and(|m| m.is_file() && m.uid() == ours);
        if is_left && is_ours() && !is_held(&entry.path()) && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    removed
}

/// Takes a file for as long as it is open, so that no other sidecar removes its name.
pub fn hold(file: &File) -> io::Result<()> {
    file.try_lock().map_err(io::Error::from)
}

/// Whether a living process holds it. One that cannot be opened is left alone.
fn is_held(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    !opened.is_ok_and(|file| hold(&file).is_ok())
}

fn is_dead(pid: Pid) -> bool {
    pid == Pid::this() || signal::kill(pid, None) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::scratch::Scratch;

    #[test]
    fn only_our_own_names_of_the_dead_are_removed() {
        let scratch = Scratch::new();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let random = "0123456789abcdef0123456789abcdef";
        let left = [format!("{ARENA_PREFIX}{dead}.{random}"), format!("{ARENA_PREFIX}{}.{random}", std::process::id())];
        let kept = [
            format!("{ARENA_PREFIX}1.{random}"),
            format!("{ARENA_PREFIX}{dead}.{}", &random[1..]),
            format!("{ARENA_PREFIX}{dead}.{}", random.to_uppercase()),
            format!("{ARENA_PREFIX}-{dead}.{random}"),
            format!("{ARENA_PREFIX}x.{random}"),
            format!("other.{dead}.{random}"),
        ];
        for name in kept.iter().chain(&left) {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        // as a sidecar in another container does, whose number means nothing here
        let foreign = scratch.path().join(format!("{ARENA_PREFIX}{dead}.{}", random.replace('1', "e")));
        let held = File::create(&foreign).unwrap();
        hold(&held).unwrap();
        let link = scratch.path().join(format!("{ARENA_PREFIX}{dead}.{}", random.replace('0', "f")));
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert_eq!(sweep_in(scratch.path()), 2);
        assert!(foreign.exists());
        drop(held);
        assert_eq!((sweep_in(scratch.path()), foreign.exists()), (1, false));
        assert!(left.iter().all(|name| !scratch.path().join(name).exists()));
        assert!(kept.iter().all(|name| scratch.path().join(name).exists()));
        assert!(fs::symlink_metadata(&link).is_ok());
        assert_eq!(sweep_in(Path::new("/nowhere")), 0);
    }

    #[test]
    fn a_name_goes_with_its_file() {
        let name = Name::new().unwrap();
        assert_eq!(arena_owner(name.as_str()).map(Pid::from_raw), Some(Pid::this()));
        fs::write(name.path(), "").unwrap();
        let path = name.path();
        drop(name);
        assert!(!path.exists());
    }
}
