//! The roll: requests that came and are not answered, in memory that outlives this process, so that whoever comes after it can answer
//! each of them once.
//!
//! ```text
//! entry   one word: bits 0..32 id of the request, 32..48 number of the connection, 48..56 kind, 56..58 how far it is; 0: none
//! ```
//! Invariant: a request stands in the roll before its connection is at rest behind it (see [`super::mark`]), and leaves it when the
//! answer has become a reason for doubt. So whoever finds a connection without a reason for doubt finds all of its unanswered requests
//! here, and no other one. The books of the hub are the only writer, with their lock held.

use std::sync::atomic::{AtomicU64, Ordering};

use nexus_protocol::RequestId;
use nexus_protocol::message::Kind;

use super::mark::Mark;

/// Entries. More requests than that are reasons for doubt, each of them.
pub const ENTRIES: usize = 1 << 15;

const CONNECTION_BITS: u32 = 16;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody has begun with it.
    Waits,
    /// Somebody has.
    Begun,
}

/// What one entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub connection: u32,
    pub id: RequestId,
    pub kind: Kind,
    pub progress: Progress,
}

/// It is no entry that anybody would have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

impl Entry {
    pub fn to_word(self) -> u64 {
        let progress = match self.progress {
            Progress::Waits => 1,
            Progress::Begun => 2,
        };
        u64::from(self.id.0) | u64::from(self.connection) << 32 | u64::from(self.kind as u8) << 48 | progress << 56
    }

    /// None: nothing stands there.
    pub fn of_word(word: u64) -> Result<Option<Self>, Nonsense> {
        if word == 0 {
            return Ok(None);
        }
        let [a, b, c, d, e, f, kind, progress] = word.to_le_bytes();
        let (id, connection) = (u32::from_le_bytes([a, b, c, d]), u32::from(u16::from_le_bytes([e, f])));
        let progress = match progress {
            1 => Progress::Waits,
            2 => Progress::Begun,
            _ => return Err(Nonsense),
        };
        let kind = Kind::from_number(kind).ok_or(Nonsense)?;
        if id == 0 {
            return Err(Nonsense);
        }
        Ok(Some(Self { connection, id: RequestId(id), kind, progress }))
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Nobody would look.
    None,
    /// There was no room: it is a reason for doubt.
    Doubt,
    At(u32),
}

/// See the module. The default is one that nobody looks at.
#[derive(Debug, Default)]
pub struct Roll {
    words: &'static [AtomicU64],
    /// Entries that were in use, to be used again first: few are ever touched.
    free: Vec<u32>,
    /// From here on none was in use.
    unused: u32,
}

impl Roll {
    /// `words`: of all entries, each of them 0.
    pub fn over(words: &'static [AtomicU64]) -> Self {
        Self { words, free: Vec::new(), unused: 0 }
    }

    fn word(&self, at: u32) -> Option<&AtomicU64> {
        self.words.get(at as usize)
    }

    /// A request has come.
    pub fn enter(&mut self, mark: Mark, id: RequestId, kind: Kind) -> Slot {
        if !mark.counts() {
            return Slot::None;
        }
        let (reused, next) = (self.free.pop(), self.unused);
        let at = reused.unwrap_or(next);
        let fits = mark.number() < 1 << CONNECTION_BITS;
        let Some(word) = self.word(at).filter(|_| fits) else {
            self.free.extend(reused);
            mark.doubt();
            return Slot::Doubt;
        };
        let entry = Entry { connection: mark.number(), id, kind, progress: Progress::Waits };
        word.store(entry.to_word(), Ordering::Release);
        if reused.is_none() {
            self.unused += 1;
        }
        Slot::At(at)
    }

    /// Somebody begins with it. That is for good, also when it waits again.
    pub fn begins(&self, slot: Slot) {
        let Slot::At(at) = slot else { return };
        let Some(word) = self.word(at) else { return };
        if let Ok(Some(entry)) = Entry::of_word(word.load(Ordering::Relaxed)) {
            word.store(Entry { progress: Progress::Begun, ..entry }.to_word(), Ordering::Release);
        }
    }

    /// It is answered, or nobody waits for that any more.
    pub fn leave(&mut self, slot: Slot) {
        let Slot::At(at) = slot else { return };
        if let Some(word) = self.word(at) {
            word.store(0, Ordering::Release);
            self.free.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn words(entries: usize) -> &'static [AtomicU64] {
        Vec::from_iter((0..entries).map(|_| AtomicU64::new(0))).leak()
    }

    fn read(words: &[AtomicU64]) -> Vec<Entry> {
        let all = words.iter().map(|word| word.load(Ordering::Acquire));
        all.filter_map(|word| Entry::of_word(word).unwrap()).collect()
    }

    #[test]
    fn what_stands_in_the_roll_is_what_is_not_answered() {
        let (mut random, words) = (Random(3), words(64));
        let mut roll = Roll::over(words);
        let mark = Mark::new(Some(Box::leak(Box::default())), 7);
        let mut open: Vec<(Entry, Slot)> = Vec::new();
        for id in 1..20_000 {
            match random.below(3) {
                0 if open.len() < 64 => {
                    let slot = roll.enter(mark, RequestId(id), Kind::Execute);
                    let (kind, progress) = (Kind::Execute, Progress::Waits);
                    open.push((Entry { connection: 7, id: RequestId(id), kind, progress }, slot));
                }
                1 if !open.is_empty() => {
                    let at = random.below(open.len());
                    roll.begins(open[at].1);
                    open[at].0.progress = Progress::Begun;
                }
                _ if !open.is_empty() => {
                    let at = random.below(open.len());
                    roll.leave(open.swap_remove(at).1);
                }
                _ => {}
            }
            let (mut told, mut expected) = (read(words), Vec::from_iter(open.iter().map(|(entry, _)| *entry)));
            told.sort_by_key(|entry| entry.id.0);
            expected.sort_by_key(|entry| entry.id.0);
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn what_finds_no_room_is_a_reason_for_doubt() {
        let mut roll = Roll::over(words(2));
        let reasons: &'static AtomicU64 = Box::leak(Box::default());
        let mark = Mark::new(Some(reasons), 1);
        let first = roll.enter(mark, RequestId(1), Kind::Execute);
        assert!(matches!(roll.enter(mark, RequestId(2), Kind::Check), Slot::At(_)));
        assert_eq!((roll.enter(mark, RequestId(3), Kind::Check), reasons.load(Ordering::Relaxed)), (Slot::Doubt, 1));
        roll.leave(first);
        assert!(matches!(roll.enter(mark, RequestId(4), Kind::Check), Slot::At(_)));
        assert_eq!(roll.enter(Mark::default(), RequestId(5), Kind::Check), Slot::None);
    }

    #[test]
    fn a_word_says_what_was_written_or_nothing() {
        let mut random = Random(11);
        for _ in 0..200_000 {
            let word = random.next() >> random.below(64);
            if let Ok(Some(entry)) = Entry::of_word(word) {
                assert_eq!(entry.to_word(), word);
            }
        }
    }
}
