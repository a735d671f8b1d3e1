//! A file in memory that supervisor and worker have open: too long for a message, and not worth a channel.
//!
//! ```text
//! offset  bytes
//!      0      8  what the cache on disk takes, written by the supervisor
//!      8      8  its entries that were no good
//!     16      8  how many connections the worker has taken, written by it, and by the supervisor before it is there
//!   4096  1 MiB  text of the metrics, written by the worker, which says how long it is
//! behind   8 m  for each connection, how many reasons there are to doubt that it is at rest (see `server::mark`): written by the
//!               supervisor when it hands one over, then by the worker
//! behind   8 n  the roll of unanswered requests (see `server::roll`), written by the worker
//! ```
//! A supervisor never maps it, and its length cannot change: whatever a worker writes, the supervisor copies a bounded part of it once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;

use nexus_protocol::limits::PAGE_TEXT_BYTES;

use crate::cache::LowerCounts;
use crate::os;
use crate::server::roll;

const TAKEN_AT: u64 = 16;
const TEXT_AT: u64 = 4096;
const MARKS_AT: u64 = TEXT_AT + PAGE_TEXT_BYTES;
/// More than there are connections, so that a number is anew in use long after its last connection.
pub const MARKS: u32 = 1 << 16;
const ROLL_AT: u64 = MARKS_AT + MARKS as u64 * 8;
/// Of the roll, read at once.
const READ_WORDS: usize = 1 << 13;

/// See the module.
#[derive(Debug)]
pub struct Page(File);

impl Page {
    pub fn new() -> io::Result<Self> {
        Ok(Self(os::fixed_memory_file("nexus-page", ROLL_AT + roll::ENTRIES as u64 * 8)?))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub fn write_counts(&self, counts: LowerCounts) {
        let LowerCounts { used_bytes, rejected } = counts;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&used_bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&rejected.to_le_bytes());
        // figures for people: an old one does no harm
        let _ = self.0.write_all_at(&bytes, 0);
    }

    pub fn counts(&self) -> LowerCounts {
        let mut bytes = [0; 16];
        let _ = self.0.read_exact_at(&mut bytes, 0);
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        LowerCounts { used_bytes: word(0), rejected: word(8) }
    }

    pub fn write_taken(&self, taken: u64) {
        // its length is fixed and its pages are there: this has nothing to fail of
        let _ = self.0.write_all_at(&taken.to_le_bytes(), TAKEN_AT);
    }

    pub fn taken(&self) -> u64 {
        let mut bytes = [0; 8];
        let _ = self.0.read_exact_at(&mut bytes, TAKEN_AT);
        u64::from_le_bytes(bytes)
    }

    pub fn write_mark(&self, number: u32, reasons: u64) {
        let _ = self.0.write_all_at(&reasons.to_le_bytes(), MARKS_AT + u64::from(number % MARKS) * 8);
    }

    /// How many reasons there are to doubt that a connection is at rest, by what the worker has said.
    pub fn mark(&self, number: u32) -> u64 {
        let mut bytes = [0; 8];
        match self.0.read_exact_at(&mut bytes, MARKS_AT + u64::from(number % MARKS) * 8) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => u64::MAX,
        }
    }

    /// All of them, for the worker.
    pub fn marks(&self) -> io::Result<&'static [AtomicU64]> {
        os::shared_words(self.0.as_fd(), MARKS_AT, MARKS as usize)
    }

    /// The words of the roll, for the worker.
    pub fn roll(&self) -> io::Result<&'static [AtomicU64]> {
        os::shared_words(self.0.as_fd(), ROLL_AT, roll::ENTRIES)
    }

    /// Calls `each` with the word of each entry of the roll, whatever it is.
    pub fn read_roll(&self, mut each: impl FnMut(u64)) -> io::Result<()> {
        let mut bytes = vec![0; READ_WORDS * 8];
        for first in (0..roll::ENTRIES).step_by(READ_WORDS) {
            self.0.read_exact_at(&mut bytes, ROLL_AT + first as u64 * 8)?;
            let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            words.for_each(&mut each);
        }
        Ok(())
    }

    /// Returns its length. None: it is too long.
    pub fn write_text(&self, text: &str) -> Option<u64> {
        let len = text.len() as u64;
        (len <= PAGE_TEXT_BYTES && self.0.write_all_at(text.as_bytes(), TEXT_AT).is_ok()).then_some(len)
    }

    /// A copy of the text. None: that length makes no sense.
    pub fn text(&self, len: u64) -> Option<String> {
        let len = usize::try_from(len).ok().filter(|len| *len as u64 <= PAGE_TEXT_BYTES)?;
        let mut bytes = vec![0; len];
        self.0.read_exact_at(&mut bytes, TEXT_AT).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Page {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl From<Page> for OwnedFd {
    fn from(page: Page) -> Self {
        page.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_lies_is_no_text_and_the_file_keeps_its_own() {
        let page = Page::new().unwrap();
        assert_eq!(page.write_text("metrics"), Some(7));
        assert_eq!(page.text(7).as_deref(), Some("metrics"));
        for len in [PAGE_TEXT_BYTES + 1, u64::MAX, 1 << 62] {
            assert_eq!(page.text(len), None);
        }
        assert_eq!(page.text(PAGE_TEXT_BYTES).map(|text| text.len() as u64), Some(PAGE_TEXT_BYTES));
        assert!(page.0.set_len(0).is_err() && page.0.set_len(1 << 30).is_err());
        let counts = LowerCounts { used_bytes: 3, rejected: 4 };
        page.write_counts(counts);
        page.write_taken(u64::MAX);
        assert_eq!((page.counts(), page.taken()), (counts, u64::MAX));
    }
}
