//! The file in shared memory of one connection (SPEC 7), and who has which part of it.
//!
//! Invariants: every place is chosen here, for what is sent and for what is lent to answers, and is in use until its
//! [`Lease`] is dropped; no two leases overlap. The file is read and written with plain file I/O, never mapped: a peer that
//! shrinks it causes an error. What is read is copied once and the copy is checked. Knows neither messages nor connections.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nexus_protocol::message::{Region, arena_owner};
use nexus_protocol::payload;
use nix::fcntl::OFlag;

use crate::slot::lock;

const SHM: &str = "/dev/shm";

/// Payloads begin at multiples of this: pages are not shared by two of them.
const ALIGN_BYTES: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Arena {
    file: File,
    generation: u64,
    bytes: u64,
    /// In use: first byte to the one behind the last.
    places: Mutex<BTreeMap<u64, u64>>,
    /// A write failed: nothing is put here any more. Answers that are under way are still read from here.
    full: AtomicBool,
}

impl Arena {
    /// Opens the file that the sidecar has made, if it is one that it may have made.
    pub(crate) fn open(name: &str, generation: u64, bytes: u64) -> io::Result<Arc<Self>> {
        let bad = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if arena_owner(name).is_none() {
            return bad("not a name of an arena");
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let file = options.open(Path::new(SHM).join(name))?;
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() || found.len() < bytes {
            return bad("not an arena of this user, or a shorter one");
        }
        Ok(Self::of(file, generation, bytes))
    }

    fn of(file: File, generation: u64, bytes: u64) -> Arc<Self> {
        Arc::new(Self { file, generation, bytes, places: Mutex::default(), full: AtomicBool::new(false) })
    }

    /// First fit.
    fn reserve(&self, bytes: u64) -> Option<u64> {
        if self.full.load(Ordering::Relaxed) {
            return None;
        }
        let size = bytes.checked_next_multiple_of(ALIGN_BYTES)?.max(ALIGN_BYTES);
        let mut places = lock(&self.places);
        let mut offset = 0;
        for (start, end) in places.iter() {
            if start - offset >= size {
                break;
            }
            offset = *end;
        }
        let end = offset.checked_add(size).filter(|end| *end <= self.bytes)?;
        places.insert(offset, end);
        Some(offset)
    }
}

/// The places of one request, its own until the answer has been read.
#[derive(Debug)]
pub(crate) struct Lease {
    arena: Arc<Arena>,
    starts: Vec<u64>,
    reply: Option<Region>,
}

impl Lease {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        Self { arena, starts: Vec::new(), reply: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    fn take(&mut self, bytes: u64) -> Option<Region> {
        let offset = self.arena.reserve(bytes)?;
        self.starts.push(offset);
        Some(Region { generation: self.arena.generation, offset, len: bytes, crc32: None })
    }

    /// Writes a payload. None: there is no room.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<Region> {
        let region = self.take(bytes.len() as u64)?;
        if let Err(error) = self.arena.file.write_all_at(bytes, region.offset) {
            // /dev/shm is full, most likely: the socket has room.
            log::debug!("shared memory is not used any more: {error}");
            self.arena.full.store(true, Ordering::Relaxed);
            return None;
        }
        Some(region)
    }

    /// A place for the answer, of so many bytes or a quarter of the file. None: there is no room.
    pub(crate) fn lend(&mut self, bytes: u64) -> Option<Region> {
        self.reply = self.take(bytes.min(self.arena.bytes / 4));
        self.reply
    }

    /// Where the answer of this request may lie.
    pub(crate) fn reply(&self) -> Option<Reply> {
        Some(Reply { arena: Arc::clone(&self.arena), lent: self.reply? })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut places = lock(&self.arena.places);
        for start in &self.starts {
            places.remove(start);
        }
    }
}

/// A place that was lent for an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    arena: Arc<Arena>,
    lent: Region,
}

impl Reply {
    /// A copy of a payload of the answer: one well-formed value. `Err`: what the sidecar did wrong.
    pub(crate) fn read(&self, region: &Region) -> Result<Vec<u8>, &'static str> {
        let within = |end: u64| region.offset >= self.lent.offset && end <= self.lent.offset + self.lent.len;
        let is_ours = region.generation == self.lent.generation;
        if !is_ours || !region.offset.checked_add(region.len).is_some_and(within) {
            return Err("a region outside of what was lent");
        }
        let length = usize::try_from(region.len).map_err(|_| "a region larger than memory")?;
        let mut copy = vec![0; length];
        self.arena.file.read_exact_at(&mut copy, region.offset).map_err(|_| "a region that cannot be read")?;
        payload::validate(&copy).map_err(|_| "a region that holds no payload")?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: u64 = 1 << 10;

    /// A file without a name, in the folder that arenas lie in.
    fn arena(bytes: u64) -> Arc<Arena> {
        let unique = format!("nexus-client-tests.{}.{:?}", std::process::id(), std::thread::current().id());
        let path = Path::new(SHM).join(unique.replace(['(', ')'], "-"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.set_len(bytes).unwrap();
        Arena::of(file, 7, bytes)
    }

    /// A payload: a text of so many bytes.
    fn text(length: usize) -> Vec<u8> {
        rmp_serde::to_vec(&"x".repeat(length)).unwrap()
    }

    #[test]
    fn only_names_of_arenas_are_opened() {
        let id = "0123456789abcdef0123456789abcdef";
        let is_name = |name: &str| arena_owner(name).is_some();
        assert!(is_name(&format!("nexus-sidecar.17.{id}")));
        for name in ["", "nexus-sidecar.", "nexus-sidecar.1.x", "../../etc/passwd", "nexus-sidecar.1./../../etc/passwd"]
        {
            assert!(!is_name(name), "{name}");
            assert!(Arena::open(name, 1, 1).is_err());
        }
        assert!(!is_name(&format!("nexus-sidecar.1.{}", id.to_uppercase())));
        assert!(!is_name(&format!("nexus-sidecar..{id}")));
        assert!(!is_name(&format!("nexus-sidecar.1.{id}0")));
        let missing = Arena::open(&format!("nexus-sidecar.1.{id}"), 1, 1).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn places_never_overlap_are_found_again_and_end_with_their_lease() {
        let arena = arena(64 * KB);
        let mut leases: Vec<_> = (0..16).map(|_| Lease::new(Arc::clone(&arena))).collect();
        let offsets: Vec<_> = leases.iter_mut().map(|lease| lease.put(&text(4000)).unwrap().offset).collect();
        assert_eq!(offsets, (0..16).map(|n| n * 4 * KB).collect::<Vec<_>>());
        let mut late = Lease::new(Arc::clone(&arena));
        assert!(late.put(&text(4000)).is_none(), "there is no room");
        assert!(late.is_empty());
        drop(leases.drain(4..6));
        assert!(late.put(&text(9000)).is_none());
        assert_eq!(late.put(&text(8000)).unwrap().offset, 16 * KB);
        drop((leases, late));
        assert!(lock(&arena.places).is_empty());
    }

    #[test]
    fn what_lies_outside_of_the_lent_place_or_is_no_payload_is_refused() {
        let arena = arena(64 * KB);
        let mut lease = Lease::new(Arc::clone(&arena));
        let own = lease.put(&text(100)).unwrap();
        let lent = lease.lend(1 << 40).unwrap();
        assert_eq!(lent.len, 16 * KB, "at most a quarter");
        let reply = lease.reply().unwrap();
        arena.file.write_all_at(&text(5000), lent.offset).unwrap();
        let answer = Region { len: 5003, ..lent };
        assert_eq!(reply.read(&answer).unwrap(), text(5000));
        let wrong = [
            own,
            Region { len: 5002, ..lent },
            Region { len: 5004, ..lent },
            Region { len: 0, ..lent },
            Region { generation: 8, ..answer },
            Region { len: lent.len + 1, ..lent },
            Region { offset: lent.offset - 1, ..answer },
            Region { offset: u64::MAX, ..answer },
            Region { len: u64::MAX, ..answer },
        ];
        for region in wrong {
            assert!(reply.read(&region).is_err(), "{region:?}");
        }
        arena.file.set_len(1).unwrap();
        assert_eq!(reply.read(&answer), Err("a region that cannot be read"));
    }

    #[test]
    fn a_write_that_fails_is_the_last_one() {
        let path = Path::new("/dev/full");
        let arena = Arena::of(OpenOptions::new().read(true).write(true).open(path).unwrap(), 1, 64 * KB);
        let mut lease = Lease::new(Arc::clone(&arena));
        assert!(lease.put(&text(100)).is_none());
        assert!(lease.lend(100).is_none());
    }

    #[test]
    fn threads_that_take_and_give_back_never_meet() {
        let arena = arena(256 * KB);
        std::thread::scope(|scope| {
            for mark in 1..=8_u8 {
                let arena = &arena;
                scope.spawn(move || {
                    for round in 0..500 {
                        let mut lease = Lease::new(Arc::clone(arena));
                        let bytes = vec![mark; 1000 + (round * 977) % 60_000];
                        let Some(region) = lease.put(&bytes) else { continue };
                        let mut seen = vec![0; bytes.len()];
                        arena.file.read_exact_at(&mut seen, region.offset).unwrap();
                        assert!(seen == bytes, "{mark} in {round}");
                    }
                });
            }
        });
        assert!(lock(&arena.places).is_empty());
    }
}
