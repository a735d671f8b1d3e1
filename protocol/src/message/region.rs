//! Payloads that lie in a shared memory segment: where, and how the segment comes to be. A field is named here as in SPEC.md.
//!
//! A region is a claim of its sender. [`Region::range`] is the only way to use one: it knows no arithmetic that could wrap.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize};

use crate::message::maps::{OpenArenaFields, Region, Regions};
use crate::strict;

impl Region {
    /// The bytes of it, if they are within an arena of `bytes`.
    pub fn range(&self, bytes: u64) -> Option<Range<u64>> {
        let end = self.offset.checked_add(self.len)?;
        (end <= bytes).then_some(self.offset..end)
    }
}

impl Regions {
    /// None of them.
    pub const NONE: Self =
        Self { state: None, set: None, args: None, scope: None, value: None, state_mutations: None, reply: None };

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }
}

/// `regions` of a message.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regions, D::Error> {
    strict::opt_map(deserializer).map(Option::unwrap_or_default)
}

/// A request for an arena, or what became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OpenArenaFields", into = "OpenArenaFields")]
pub enum OpenArena {
    /// Make one, of about that size. One that there was is no more.
    Make { bytes: u64 },
    /// The client has it open (or cannot open it, and it can go).
    Settle { generation: u64, opened: bool },
}

/// Neither the one form nor the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("either `bytes`, or `generation` and `opened`, have to be there")]
pub(super) struct OpenArenaError;

impl TryFrom<OpenArenaFields> for OpenArena {
    type Error = OpenArenaError;

    fn try_from(fields: OpenArenaFields) -> Result<Self, OpenArenaError> {
        match (fields.bytes, fields.generation, fields.opened) {
            (Some(bytes), None, None) => Ok(Self::Make { bytes }),
            (None, Some(generation), Some(opened)) => Ok(Self::Settle { generation, opened }),
            _ => Err(OpenArenaError),
        }
    }
}

impl From<OpenArena> for OpenArenaFields {
    fn from(request: OpenArena) -> Self {
        match request {
            OpenArena::Make { bytes } => Self { bytes: Some(bytes), generation: None, opened: None },
            OpenArena::Settle { generation, opened } => {
                Self { bytes: None, generation: Some(generation), opened: Some(opened) }
            }
        }
    }
}

/// What the names of arenas begin with: `nexus-sidecar.PID.RANDOM`, a process and 32 hex digits.
pub const ARENA_PREFIX: &str = "nexus-sidecar.";
const ARENA_RANDOM_DIGITS: usize = 32;

/// The process in the name of an arena. `None`: it is no such name. One that is leads out of no directory.
pub fn arena_owner(name: &str) -> Option<i32> {
    let (pid, random) = name.strip_prefix(ARENA_PREFIX)?.split_once('.')?;
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let is_name = random.len() == ARENA_RANDOM_DIGITS && random.bytes().all(is_hex);
    let is_number = pid.bytes().all(|digit| digit.is_ascii_digit());
    pid.parse().ok().filter(|pid| is_name && is_number && *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_within_its_arena_or_nowhere() {
        let region = |offset, len| Region { generation: 1, offset, len, crc32: None };
        assert_eq!(region(0, 100).range(100), Some(0..100));
        assert_eq!(region(100, 0).range(100), Some(100..100));
        for (offset, len) in [(0, 101), (100, 1), (101, 0), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(region(offset, len).range(100), None, "{offset} {len}");
        }
    }
}
