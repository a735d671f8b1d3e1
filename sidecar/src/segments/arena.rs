//! One shared memory segment: a named file in /dev/shm until the client has it open, then a file without a name.
//!
//! Invariants: neither side's bytes are ever touched through a mapping. The peer holds the same file and may shrink it at any
//! time, and a mapped page that is no more is a SIGBUS; `pread` and `pwrite` give an error. What is read is copied once, and
//! only the copy is looked at. The size is the one that it was made with, whatever the peer has made of it since.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nexus_protocol::WireError;
use nexus_protocol::message::Region;

use super::maker::{Named, SegmentMaker};
use crate::budget::Charge;
use crate::faults::{self, Point};

/// See the module.
#[derive(Debug)]
pub struct Arena {
    pub generation: u64,
    bytes: u64,
    file: File,
    /// Until the client has it open.
    name: Mutex<Option<Box<dyn Named>>>,
    _charge: Charge,
}

impl Arena {
    pub fn create(maker: &dyn SegmentMaker, generation: u64, bytes: u64, charge: Charge) -> io::Result<Self> {
        faults::io(Point::Segment)?;
        let (file, name) = maker.make(bytes)?;
        Ok(Self { generation, bytes, file, name: Mutex::new(Some(name)), _charge: charge })
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Name of its file, while it has one.
    pub fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|name| name.as_str().to_owned())
    }

    /// The client has it open: nobody else needs to find it. True: it had a name.
    pub fn remove_name(&self) -> bool {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// A copy of a region. `field`: whose payload it is.
    pub fn read(&self, field: &str, region: &Region) -> Result<Vec<u8>, WireError> {
        let range = self.range(field, region)?;
        let unreadable = |e: io::Error| WireError::bad_region(field, "unreadable-region", e);
        let len = usize::try_from(region.len).map_err(|e| unreadable(io::Error::other(e)))?;
        // as long as the file is that long: the peer cannot have us reserve more than it has
        // the offset is moved, which nothing here reads or writes by
        if (&self.file).seek(SeekFrom::End(0)).map_err(unreadable)? < range.end {
            return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut copy = vec![0; len];
        let read = faults::io(Point::SegmentRead).and_then(|()| self.file.read_exact_at(&mut copy, range.start));
        read.map_err(unreadable)?;
        match region.crc32 {
            Some(crc) if crc != crc32fast::hash(&copy) => {
                Err(WireError::bad_region(field, "unreadable-region", "the bytes are not those of the checksum"))
            }
            _ => Ok(copy),
        }
    }

    /// Writes bytes, given in pieces, at the start of a region that the peer has lent, and returns where they are. None: they don't fit, or
    /// cannot be written; they have to go another way.
    pub fn write<'a>(&self, region: &Region, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Region> {
        let len = pieces.clone().map(|piece| piece.len() as u64).sum();
        let range = region.range(self.bytes)?;
        if len > region.len || region.generation != self.generation {
            return None;
        }
        faults::io(Point::SegmentWrite).ok()?;
        let mut at = range.start;
        for piece in pieces {
            self.file.write_all_at(piece, at).ok()?;
            at += piece.len() as u64;
        }
        Some(Region { generation: self.generation, offset: range.start, len, crc32: None })
    }

    fn range(&self, field: &str, region: &Region) -> Result<std::ops::Range<u64>, WireError> {
        if region.generation != self.generation {
            return Err(unknown_arena(field));
        }
        region.range(self.bytes).ok_or_else(|| {
            let Region { offset, len, .. } = region;
            let why = format!("{len} bytes at {offset} are not within the {} of the arena", self.bytes);
            WireError::bad_region(field, "bad-region", why)
        })
    }
}

/// Of another generation, of another connection, or none: all alike.
pub fn unknown_arena(field: &str) -> WireError {
    WireError::bad_region(field, "unknown-arena", "there is no such arena on this connection")
}

/// Where segments have their names.
pub fn directory() -> PathBuf {
    PathBuf::from("/dev/shm")
}

#[cfg(test)]
mod tests {
    use std::iter::once;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use nexus_protocol::ContextValue;

    use super::super::OwnSegments;
    use super::*;
    use crate::budget::Budget;

    const BYTES: u64 = 1 << 20;

    fn arena() -> (Arc<Arena>, File) {
        let charge = Budget::new("bytes", BYTES).charge(BYTES).unwrap();
        let arena = Arena::create(&OwnSegments, 7, BYTES, charge).unwrap();
        let path = directory().join(arena.name().unwrap());
        let peer = File::options().read(true).write(true).open(&path).unwrap();
        assert!(arena.remove_name() && !arena.remove_name());
        assert!(!path.exists());
        (Arc::new(arena), peer)
    }

    fn region(offset: u64, len: u64) -> Region {
        Region { generation: 7, offset, len, crc32: None }
    }

    fn reason(result: Result<Vec<u8>, WireError>) -> String {
        match &result.unwrap_err().context["reason"] {
            ContextValue::Text(reason) => reason.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_peer_writes_is_read_and_the_other_way_round() {
        let (arena, peer) = arena();
        peer.write_all_at(b"payload", 1000).unwrap();
        assert_eq!(arena.read("state", &region(1000, 7)).unwrap(), b"payload");
        let lent = region(2000, 10);
        assert_eq!(arena.write(&lent, [&b"an"[..], b"swer"].into_iter()), Some(region(2000, 6)));
        let mut read = [0; 6];
        peer.read_exact_at(&mut read, 2000).unwrap();
        assert_eq!(&read, b"answer");
        assert_eq!(arena.write(&lent, once(&b"eleven bytes"[..])), None);
        assert_eq!(arena.write(&region(BYTES, 10), once(&b"x"[..])), None);
        assert_eq!(arena.write(&Region { generation: 6, ..lent }, once(&b"x"[..])), None);
    }

    #[test]
    fn regions_outside_of_the_arena_are_refused() {
        let (arena, _peer) = arena();
        for (offset, len) in [(0, BYTES + 1), (BYTES, 1), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(reason(arena.read("state", &region(offset, len))), "bad-region");
        }
        assert_eq!(reason(arena.read("state", &Region { generation: 8, ..region(0, 1) })), "unknown-arena");
        assert!(arena.read("state", &region(BYTES, 0)).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_was_shrunk_is_an_error_and_one_that_was_grown_is_not_larger() {
        let (arena, peer) = arena();
        peer.set_len(100).unwrap();
        assert_eq!(reason(arena.read("state", &region(0, 200))), "unreadable-region");
        assert_eq!(arena.read("state", &region(0, 100)).unwrap(), [0; 100]);
        peer.set_len(BYTES * 4).unwrap();
        assert_eq!(reason(arena.read("state", &region(BYTES, 1))), "bad-region");
    }

    #[test]
    fn a_copy_with_a_checksum_is_what_was_meant_or_nothing_while_a_peer_writes() {
        const LEN: usize = 8192;
        let (arena, peer) = arena();
        let versions = [vec![0xaa; LEN], vec![0x55; LEN]];
        let checked = versions.each_ref().map(|v| Region { crc32: Some(crc32fast::hash(v)), ..region(0, LEN as u64) });
        // what is there is known as long as nobody writes
        peer.write_all_at(&versions[0], 0).unwrap();
        assert_eq!(arena.read("state", &checked[0]).unwrap(), versions[0]);
        assert_eq!(reason(arena.read("state", &checked[1])), "unreadable-region");
        let (rounds, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in versions.iter().cycle() {
                    peer.write_all_at(version, 0).unwrap();
                    if version[0] == 0x55 {
                        // and shrinks it in between
                        peer.set_len(4096).unwrap();
                        peer.set_len(BYTES).unwrap();
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            let mut reads = 0;
            // so that both have had their turns, however they are scheduled
            while reads < 100_000 || rounds.load(Ordering::Relaxed) < 1000 {
                if let Ok(copy) = arena.read("state", &checked[reads % 2]) {
                    // no `assert` while the peer would write on for ever
                    if copy != versions[reads % 2] {
                        done.store(true, Ordering::Relaxed);
                        panic!("a copy that nobody has meant, after {reads} reads");
                    }
                }
                reads += 1;
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
