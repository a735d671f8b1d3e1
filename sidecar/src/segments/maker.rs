//! Who makes segments: this process, or whoever may make files for it.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use shared_memory::ShmemConf;

use super::name::{Name, hold};

/// The name of a segment. Dropping it removes the file.
pub trait Named: Debug + Send {
    fn as_str(&self) -> &str;
}

/// See the module.
pub trait SegmentMaker: Debug + Send + Sync {
    /// A new segment of so many bytes, and its name.
    fn make(&self, bytes: u64) -> io::Result<(File, Box<dyn Named>)>;
}

/// Segments with names of this process.
#[derive(Debug)]
pub struct OwnSegments;

impl SegmentMaker for OwnSegments {
    fn make(&self, bytes: u64) -> io::Result<(File, Box<dyn Named>)> {
        let name = Name::new()?;
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut segment = ShmemConf::new().os_id(name.os_id()).size(size).create().map_err(io::Error::other)?;
        // from here on the name is ours to remove; the mapping goes unused when `segment` does
        segment.set_owner(false);
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(name.path())?;
        hold(&file)?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(io::Error::other("the segment is not the one that was made"));
        }
        Ok((file, Box::new(name)))
    }
}
