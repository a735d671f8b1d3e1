//! The rules for control values that no field type can check: depth, number, str keys, no key twice, UTF-8.
//!
//! Invariant: after [`check`] a fields map has at most `MAX_CONTROL_VALUES` values and `MAX_CONTROL_DEPTH` levels,
//! also under keys that nobody knows; what decodes it afterwards allocates at most in proportion to that.
//! Recursion is bounded by `MAX_CONTROL_DEPTH`.

use std::collections::HashSet;

use crate::limits::{MAX_CONTROL_DEPTH, MAX_CONTROL_VALUES};
use crate::payload::{PayloadError, Scanner};

/// Keys up to which a map is compared pair by pair, which is faster than hashing and needs no heap.
const INLINE_KEYS: usize = 24;

/// Longest key that an error repeats.
const SHOWN_KEY_CHARS: usize = 64;

/// A rule that the fields of a message break.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Not MessagePack, or a key that is not a str.
    #[error(transparent)]
    Encoding(#[from] PayloadError),
    /// The third element is no map.
    #[error("the fields are not a map")]
    NotAMap,
    /// Too deep.
    #[error("control values nest more than {MAX_CONTROL_DEPTH} levels")]
    TooDeep,
    /// Too many.
    #[error("the message holds more than {MAX_CONTROL_VALUES} control values")]
    TooManyValues,
    /// A key twice in one map.
    #[error("the key `{key}` is there twice")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
}

/// Checks that `fields` is one map within the rules and nothing else.
pub(crate) fn check(fields: &[u8]) -> Result<(), ControlError> {
    if !fields.first().is_some_and(|marker| matches!(marker, 0x80..=0x8f | 0xde | 0xdf)) {
        return Err(ControlError::NotAMap);
    }
    let mut walk = Walk { scanner: Scanner { bytes: fields, at: 0 }, budget: MAX_CONTROL_VALUES };
    walk.value(0)?;
    match walk.scanner.at {
        end if end == fields.len() => Ok(()),
        offset => Err(PayloadError::TrailingBytes { offset }.into()),
    }
}

struct Walk<'a> {
    scanner: Scanner<'a>,
    budget: usize,
}

impl<'a> Walk<'a> {
    /// One value that `depth` containers surround.
    fn value(&mut self, depth: usize) -> Result<(), ControlError> {
        self.spend()?;
        let start = self.scanner.at;
        match self.scanner.marker()? {
            marker @ 0x80..=0x8f => self.map(u32::from(marker & 0x0f), depth),
            marker @ 0x90..=0x9f => self.array(u32::from(marker & 0x0f), depth),
            0xdc => self.scanner.length::<2>().map_err(Into::into).and_then(|count| self.array(count, depth)),
            0xdd => self.scanner.length::<4>().map_err(Into::into).and_then(|count| self.array(count, depth)),
            0xde => self.scanner.length::<2>().map_err(Into::into).and_then(|count| self.map(count, depth)),
            0xdf => self.scanner.length::<4>().map_err(Into::into).and_then(|count| self.map(count, depth)),
            _ => {
                self.scanner.at = start;
                self.scanner.skip_value::<true>()?;
                Ok(())
            }
        }
    }

    fn array(&mut self, count: u32, depth: usize) -> Result<(), ControlError> {
        let inside = one_deeper(depth)?;
        for _ in 0..count {
            self.value(inside)?;
        }
        Ok(())
    }

    fn map(&mut self, count: u32, depth: usize) -> Result<(), ControlError> {
        let inside = one_deeper(depth)?;
        let mut seen = Seen { inline: [""; INLINE_KEYS], used: 0, spilled: HashSet::new() };
        for _ in 0..count {
            self.spend()?;
            let key = self.scanner.key()?;
            if !seen.insert(key) {
                return Err(ControlError::DuplicateKey { key: key.chars().take(SHOWN_KEY_CHARS).collect() });
            }
            self.value(inside)?;
        }
        Ok(())
    }

    fn spend(&mut self) -> Result<(), ControlError> {
        self.budget = self.budget.checked_sub(1).ok_or(ControlError::TooManyValues)?;
        Ok(())
    }
}

fn one_deeper(depth: usize) -> Result<usize, ControlError> {
    if depth >= MAX_CONTROL_DEPTH {
        return Err(ControlError::TooDeep);
    }
    Ok(depth.saturating_add(1))
}

/// The keys of one map so far: the first few in place, all others in a set.
struct Seen<'a> {
    inline: [&'a str; INLINE_KEYS],
    used: usize,
    spilled: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    /// False when the key was there.
    fn insert(&mut self, key: &'a str) -> bool {
        if self.inline.iter().take(self.used).any(|seen| *seen == key) {
            return false;
        }
        match self.inline.get_mut(self.used) {
            Some(slot) => {
                *slot = key;
                self.used = self.used.saturating_add(1);
                true
            }
            None => self.spilled.insert(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_around(levels: usize) -> Vec<u8> {
        let mut bytes = [0x81, 0xa1, b'k'].repeat(levels - 1);
        bytes.push(0x80);
        bytes
    }

    fn numbered_keys(count: u16, value: u8) -> Vec<u8> {
        let mut bytes = vec![0xde];
        bytes.extend_from_slice(&count.to_be_bytes());
        for key in 0..count {
            bytes.extend_from_slice(&[0xa2, b'a' + (key >> 6) as u8 % 64, (key & 63) as u8, value]);
        }
        bytes
    }

    // shows P-control-bounds
    #[test]
    fn levels_are_counted_with_the_fields_map() {
        assert_eq!(check(&map_around(MAX_CONTROL_DEPTH)), Ok(()));
        assert_eq!(check(&map_around(MAX_CONTROL_DEPTH + 1)), Err(ControlError::TooDeep));
        assert_eq!(check(&map_around(100_000)), Err(ControlError::TooDeep));
    }

    #[test]
    fn equal_keys_are_found_in_small_large_and_nested_maps() {
        let twice = |key: &str| Err(ControlError::DuplicateKey { key: key.to_owned() });
        assert_eq!(check(&[0x82, 0xa1, b'k', 1, 0xd9, 1, b'k', 2]), twice("k"));
        assert_eq!(check(&[0x81, 0xa1, b'm', 0x82, 0xa1, b'k', 1, 0xa1, b'k', 2]), twice("k"));
        assert_eq!(check(&numbered_keys(1000, 0)), Ok(()));
        let mut large = numbered_keys(1000, 0);
        let last = large.len() - 4;
        large.copy_within(last - 4..last, last);
        assert!(matches!(check(&large), Err(ControlError::DuplicateKey { .. })));
    }

    // shows P-control-bounds
    #[test]
    fn the_number_of_values_is_bounded() {
        let mut bytes = vec![0x81, 0xa1, b'k', 0xdd];
        bytes.extend_from_slice(&70_000u32.to_be_bytes());
        bytes.extend_from_slice(&[0xc0; 70_000]);
        assert_eq!(check(&bytes), Err(ControlError::TooManyValues));
    }

    #[test]
    fn strings_of_unknown_keys_are_checked_too() {
        assert!(matches!(
            check(&[0x81, 0xa1, b'k', 0xa1, 0xff]),
            Err(ControlError::Encoding(PayloadError::BadUtf8 { .. }))
        ));
        assert!(matches!(check(&[0x81, 0x01, 0xc0]), Err(ControlError::Encoding(PayloadError::KeyNotAString { .. }))));
    }
}
