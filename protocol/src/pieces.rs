//! Bytes of which the large parts are shared instead of copied.
//!
//! ```text
//!  own:     [ header | key, ... | header | key ... ]        what was written here
//!  shared:           ^ value             ^ value            where parts that others hold as well are inserted
//! ```
//! Invariants: parts are inserted in the order of the bytes and never changed. What it does not do: say what the bytes mean.

use std::io::IoSlice;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// From this size on a value is shared. Below, a copy costs less than the bookkeeping, and a thousand of them one megabyte.
pub const SHARED_FROM_BYTES: usize = 1 << 10;

/// A part of bytes that several hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    whole: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Shared {
    /// All of `bytes`, which are not copied.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), whole: Arc::new(bytes) }
    }

    /// To be put into something else: shared where that is worth it.
    pub fn as_part(&self) -> Part<'_> {
        if self.len() < SHARED_FROM_BYTES { Part::Copied(self) } else { Part::Shared(self.clone()) }
    }

    /// A part of it. `None`: it has no such part.
    pub fn part(&self, part: Range<usize>) -> Option<Self> {
        let range = self.range.start.checked_add(part.start)?..self.range.start.checked_add(part.end)?;
        (range.start <= range.end && range.end <= self.range.end).then(|| Self { whole: self.whole.clone(), range })
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.whole.get(self.range.clone()).unwrap_or_default()
    }
}

/// Bytes to be put into something: copied or shared.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// They are copied.
    Copied(&'a [u8]),
    /// They stay where they are.
    Shared(Shared),
}

impl<'a> From<&'a [u8]> for Part<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Copied(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Part<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Copied(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Part<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Copied(bytes)
    }
}

impl From<Shared> for Part<'_> {
    fn from(bytes: Shared) -> Self {
        Self::Shared(bytes)
    }
}

impl From<Vec<u8>> for Pieces {
    /// In one place, not copied.
    fn from(own: Vec<u8>) -> Self {
        Self { own, ..Self::new() }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    own: Vec<u8>,
    /// In front of which byte of `own`, and what.
    shared: Vec<(usize, Shared)>,
    shared_bytes: usize,
}

/// A place in the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    own: usize,
    shared: usize,
}

impl Pieces {
    /// Nothing. Reserves nothing yet.
    pub const fn new() -> Self {
        Self { own: Vec::new(), shared: Vec::new(), shared_bytes: 0 }
    }

    /// Bytes in all.
    pub const fn len(&self) -> usize {
        self.own.len().saturating_add(self.shared_bytes)
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is not shared. For appending, and for changing what was appended.
    pub const fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends a part.
    pub fn push(&mut self, part: Part<'_>) {
        match part {
            Part::Copied(bytes) => self.own.extend_from_slice(bytes),
            Part::Shared(bytes) => {
                self.shared_bytes = self.shared_bytes.saturating_add(bytes.len());
                self.shared.push((self.own.len(), bytes));
            }
        }
    }

    /// Appends what another one has; its shared parts are then shared with it too.
    pub fn append(&mut self, other: &Self) {
        let at = self.own.len();
        self.own.extend_from_slice(&other.own);
        self.shared.extend(other.shared.iter().map(|(place, bytes)| (at.saturating_add(*place), bytes.clone())));
        self.shared_bytes = self.shared_bytes.saturating_add(other.shared_bytes);
    }

    /// Nothing again, the memory of the own bytes kept.
    pub fn clear(&mut self) {
        self.own.clear();
        self.shared.clear();
        self.shared_bytes = 0;
    }

    /// Where the bytes end now: for [`cut_back`](Self::cut_back).
    pub const fn mark(&self) -> Mark {
        Mark { own: self.own.len(), shared: self.shared.len() }
    }

    /// What was appended since is gone.
    pub fn cut_back(&mut self, mark: Mark) {
        self.own.truncate(mark.own);
        self.shared.truncate(mark.shared);
        self.shared_bytes = self.shared.iter().map(|(_, bytes)| bytes.len()).sum();
    }

    /// Lets the first bytes go, with all memory that only they need.
    pub fn discard(&mut self, bytes: usize) {
        let (mut left, mut own, mut gone) = (bytes, 0_usize, 0_usize);
        for (at, part) in &mut self.shared {
            let before = at.saturating_sub(own).min(left);
            (own, left) = (own.saturating_add(before), left.saturating_sub(before));
            if left < part.len() {
                part.range.start = part.range.start.saturating_add(left);
                self.shared_bytes = self.shared_bytes.saturating_sub(left);
                left = 0;
                break;
            }
            left = left.saturating_sub(part.len());
            self.shared_bytes = self.shared_bytes.saturating_sub(part.len());
            gone = gone.saturating_add(1);
        }
        own = own.saturating_add(left).min(self.own.len());
        self.shared.drain(..gone.min(self.shared.len()));
        for (at, _) in &mut self.shared {
            *at = at.saturating_sub(own);
        }
        self.own.drain(..own);
        if self.own.capacity() / 4 > self.own.len() {
            self.own.shrink_to(self.own.len().saturating_mul(2));
        }
    }

    /// The bytes, if they are in one place.
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.shared.is_empty().then_some(self.own.as_slice())
    }

    /// The pieces, in order; some may be empty.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut from = 0;
        let rest = self.own.get(self.shared.last().map_or(0, |(at, _)| *at)..).unwrap_or_default();
        let inserted = self.shared.iter().flat_map(move |(at, bytes)| {
            let before = self.own.get(std::mem::replace(&mut from, *at)..*at).unwrap_or_default();
            [before, &**bytes]
        });
        inserted.chain(std::iter::once(rest))
    }

    /// All in one place, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        self.iter().for_each(|piece| all.extend_from_slice(piece));
        all
    }

    /// Up to `max` bytes from `skip` on, as far as they fit into `slices`. Returns how many slices that are.
    pub fn gather<'a>(&'a self, mut skip: usize, mut max: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for piece in self.iter() {
            if max == 0 || used == slices.len() {
                break;
            }
            let skipped = skip.min(piece.len());
            skip = skip.saturating_sub(skipped);
            let rest = piece.get(skipped..).unwrap_or_default();
            let rest = rest.get(..max.min(rest.len())).unwrap_or_default();
            if let (false, Some(slice)) = (rest.is_empty(), slices.get_mut(used)) {
                *slice = IoSlice::new(rest);
                max = max.saturating_sub(rest.len());
                used = used.saturating_add(1);
            }
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Pieces {
        let mut pieces = Pieces::new();
        pieces.push(Shared::new(b"ab".to_vec()).into());
        pieces.push((&b"cd"[..]).into());
        pieces.push(Shared::new(b"xefy".to_vec()).part(1..3).unwrap().into());
        pieces.push(Shared::new(b"g".to_vec()).into());
        pieces.own().push(b'h');
        pieces
    }

    #[test]
    fn pieces_are_in_the_order_in_which_they_came() {
        let mut all = pieces();
        assert_eq!((all.to_vec(), all.len()), (b"abcdefgh".to_vec(), 8));
        assert_eq!(all.as_slice(), None);
        all.append(&pieces());
        assert_eq!((all.to_vec(), all.len()), (b"abcdefghabcdefgh".to_vec(), 16));
        all.clear();
        assert_eq!((all.as_slice(), all.is_empty()), (Some(&[][..]), true));
    }

    #[test]
    fn any_part_can_be_gathered() {
        let all = pieces();
        for skip in 0..=9 {
            for max in 0..=9 {
                for room in 0..=6 {
                    let mut slices = vec![IoSlice::new(&[]); room];
                    let used = all.gather(skip, max, &mut slices);
                    let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect();
                    assert!(slices[..used].iter().all(|slice| !slice.is_empty()));
                    let wanted = &b"abcdefgh"[skip.min(8)..(skip + max).min(8)];
                    assert!(wanted.starts_with(&bytes), "{skip} {max} {room}: {bytes:?}");
                    assert!(room < 5 || bytes == wanted, "{skip} {max} {room}: {bytes:?}");
                }
            }
        }
    }

    #[test]
    fn any_number_of_bytes_can_be_let_go_from_the_front() {
        for first in 0..=9 {
            for second in 0..=9 {
                let mut all = pieces();
                all.discard(first);
                all.discard(second);
                let gone = (first + second).min(8);
                assert_eq!(all.to_vec(), &b"abcdefgh"[gone..], "{first}, {second}");
                assert_eq!(all.len(), 8 - gone);
                all.push((&b"more"[..]).into());
                assert_eq!(all.to_vec(), [&b"abcdefgh"[gone..], b"more"].concat());
            }
        }
    }

    #[test]
    fn what_was_appended_can_be_taken_back() {
        let mut all = pieces();
        let mark = all.mark();
        all.append(&pieces());
        all.own().push(b'x');
        all.cut_back(mark);
        assert_eq!(all, pieces());
    }

    #[test]
    fn a_part_lies_within_its_whole() {
        let part = Shared::new(b"abcdef".to_vec()).part(2..5).unwrap();
        assert_eq!(&*part, b"cde");
        assert_eq!(part.part(1..3).as_deref(), Some(&b"de"[..]));
        let (from, to) = (3, 2);
        for wrong in [0..4, 4..4, from..to, usize::MAX..usize::MAX] {
            assert_eq!(part.part(wrong), None);
        }
    }
}
