//! A scanner for payloads: measures and checks MessagePack without decoding it, allocating or recursing.
//!
//! It exists so that the sidecar can index a state of 10 MB by its top-level keys and check that a peer sent exactly
//! one value, while the values themselves stay opaque bytes (decoding multiplies their size 30-fold and more).
//!
//! Invariants: time is linear in the bytes looked at, whatever lengths they claim; memory is a fixed array of
//! `MAX_PAYLOAD_DEPTH` counters; a value accepted by `validate` can be decoded by any MessagePack reader.
//! What it does not do: build values, or refuse equal keys (the last one counts, as in JavaScript).

use crate::error::ErrorCode;
use crate::limits::MAX_PAYLOAD_DEPTH;

/// Why bytes are not a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// A value goes on behind the last byte.
    #[error("the payload ends within a value")]
    Truncated,
    /// More than one value.
    #[error("the payload goes on behind its value, at byte {offset}")]
    TrailingBytes {
        /// First byte that is too much.
        offset: usize,
    },
    /// Containers nest too deep.
    #[error("the payload nests more than {MAX_PAYLOAD_DEPTH} levels")]
    TooDeep,
    /// 0xc1, which MessagePack never uses.
    #[error("byte {offset} of the payload is no MessagePack marker")]
    BadMarker {
        /// Where.
        offset: usize,
    },
    /// An extension type other than the timestamp, or a timestamp of a length that there is not.
    #[error("the payload holds extension type {kind} of {length} bytes, which is no timestamp")]
    BadExtension {
        /// Extension type.
        kind: i8,
        /// Its length.
        length: usize,
    },
    /// A timestamp with nanoseconds of a second or more.
    #[error("the payload holds a timestamp of {nanoseconds} nanoseconds within its second")]
    BadTimestamp {
        /// So many.
        nanoseconds: u32,
    },
    /// A map key that has no string form: nil, bin, ext or a container.
    #[error("the map key at byte {offset} of the payload is neither a str nor a number nor a bool")]
    BadKey {
        /// Where.
        offset: usize,
    },
    /// A str that is not UTF-8.
    #[error("the string at byte {offset} of the payload is not UTF-8")]
    BadUtf8 {
        /// Where its bytes begin.
        offset: usize,
    },
    /// A map was needed.
    #[error("the payload is not a map")]
    NotAMap,
    /// An array was needed.
    #[error("the payload is not an array")]
    NotAnArray,
    /// Whoever wanted it looked at has changed their mind, see [`Pace`].
    #[error("the payload was not looked at to its end")]
    Stopped,
    /// A str was needed as key.
    #[error("the map key at byte {offset} of the payload is not a string")]
    KeyNotAString {
        /// Where.
        offset: usize,
    },
}

impl PayloadError {
    /// What a peer that sent such a payload hears (SPEC 1 and 5).
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::BadExtension { .. } | Self::BadTimestamp { .. } | Self::BadKey { .. } => {
                ErrorCode::SerializationError
            }
            _ => ErrorCode::InvalidArgument,
        }
    }
}

/// nil: what an absent value means.
pub const NIL: &[u8] = &[0xc0];
/// The empty map: what an absent state or scope means.
pub const EMPTY_MAP: &[u8] = &[0x80];

/// Asked now and then whether a look at a payload goes on: whoever looks may have less time than a large one takes.
pub trait Pace {
    /// `at`: the position that has been reached. False ends the look with [`PayloadError::Stopped`].
    fn goes_on(&mut self, at: usize) -> bool;
}

/// Always goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unpaced;

impl Pace for Unpaced {
    #[inline]
    fn goes_on(&mut self, _: usize) -> bool {
        true
    }
}

impl<P: Pace> Pace for &mut P {
    #[inline]
    fn goes_on(&mut self, at: usize) -> bool {
        (**self).goes_on(at)
    }
}

/// Length of the first value in `bytes`. Strings are skipped without a look at their UTF-8.
pub fn scan(bytes: &[u8]) -> Result<usize, PayloadError> {
    Scanner { bytes, at: 0 }.skip_value::<false>()
}

/// Exactly one well-formed value: depth, extensions, map keys and UTF-8 checked, nothing behind it.
pub fn validate(bytes: &[u8]) -> Result<(), PayloadError> {
    validate_paced(bytes, &mut Unpaced)
}

/// As [`validate`], as long as `pace` says.
pub fn validate_paced(bytes: &[u8], pace: &mut impl Pace) -> Result<(), PayloadError> {
    let end = Scanner { bytes, at: 0 }.skip_value_inside::<true>(0, pace)?;
    expect_end(bytes, end)
}

/// As [`validate`], for a value that will have `around` containers around it.
pub fn validate_inside(bytes: &[u8], around: usize) -> Result<(), PayloadError> {
    let end = Scanner { bytes, at: 0 }.skip_value_inside::<true>(around, &mut Unpaced)?;
    expect_end(bytes, end)
}

/// Exactly one value, without the look at UTF-8. For payloads whose reader copes with any bytes in strings.
pub fn validate_shape(bytes: &[u8]) -> Result<(), PayloadError> {
    validate_shape_paced(bytes, &mut Unpaced)
}

/// As [`validate_shape`], as long as `pace` says.
pub fn validate_shape_paced(bytes: &[u8], pace: &mut impl Pace) -> Result<(), PayloadError> {
    let end = Scanner { bytes, at: 0 }.skip_value_inside::<false>(0, pace)?;
    expect_end(bytes, end)
}

/// Walks the entries of a map without decoding their values. Values are skipped as by [`scan`]; keys are checked.
/// The walk fails at the first fault, and with `TrailingBytes` where something follows the map.
pub fn map_entries(bytes: &[u8]) -> Result<MapEntries<'_>, PayloadError> {
    map_entries_paced(bytes, Unpaced)
}

/// As [`map_entries`], as long as `pace` says.
pub fn map_entries_paced<P: Pace>(bytes: &[u8], pace: P) -> Result<MapEntries<'_, P>, PayloadError> {
    let mut scanner = Scanner { bytes, at: 0 };
    let remaining = match scanner.marker()? {
        marker @ 0x80..=0x8f => u32::from(marker & 0x0f),
        0xde => scanner.length::<2>()?,
        0xdf => scanner.length::<4>()?,
        _ => return Err(PayloadError::NotAMap),
    };
    Ok(MapEntries { scanner, remaining, ended: false, pace })
}

/// Walks the elements of an array without decoding them; otherwise as [`map_entries`].
pub fn array_items(bytes: &[u8]) -> Result<ArrayItems<'_>, PayloadError> {
    let mut scanner = Scanner { bytes, at: 0 };
    let remaining = match scanner.marker()? {
        marker @ 0x90..=0x9f => u32::from(marker & 0x0f),
        0xdc => scanner.length::<2>()?,
        0xdd => scanner.length::<4>()?,
        _ => return Err(PayloadError::NotAnArray),
    };
    Ok(ArrayItems { scanner, remaining, ended: false })
}

/// The string that the whole of `bytes` is.
pub fn as_str(bytes: &[u8]) -> Option<&str> {
    let mut scanner = Scanner { bytes, at: 0 };
    let text = scanner.key().ok()?;
    expect_end(bytes, scanner.at).ok()?;
    Some(text)
}

/// The string that `bytes` start with, and what is behind it: an entry of a map as its key and its value.
pub fn leading_str(bytes: &[u8]) -> Result<(&str, &[u8]), PayloadError> {
    let mut scanner = Scanner { bytes, at: 0 };
    let text = scanner.key()?;
    Ok((text, bytes.get(scanner.at..).unwrap_or_default()))
}

fn expect_end(bytes: &[u8], end: usize) -> Result<(), PayloadError> {
    if end == bytes.len() { Ok(()) } else { Err(PayloadError::TrailingBytes { offset: end }) }
}

/// Entries of a top-level map, see [`map_entries`].
#[derive(Clone, Debug)]
pub struct MapEntries<'a, P = Unpaced> {
    scanner: Scanner<'a>,
    remaining: u32,
    ended: bool,
    pace: P,
}

impl<P> MapEntries<'_, P> {
    /// Entries that the map claims to still have. A claim: reserve nothing by it unchecked.
    pub fn claimed(&self) -> u32 {
        self.remaining
    }
}

impl<'a, P: Pace> Iterator for MapEntries<'a, P> {
    type Item = Result<(&'a str, &'a [u8]), PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let pace = &mut self.pace;
        let entry = step(&mut self.scanner, &mut self.remaining, &mut self.ended, |scanner| {
            Ok((scanner.key()?, scanner.value(pace)?))
        })?;
        self.ended |= entry.is_err();
        Some(entry)
    }
}

/// Elements of a top-level array, see [`array_items`].
#[derive(Clone, Debug)]
pub struct ArrayItems<'a> {
    scanner: Scanner<'a>,
    remaining: u32,
    ended: bool,
}

impl<'a> Iterator for ArrayItems<'a> {
    type Item = Result<&'a [u8], PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = step(&mut self.scanner, &mut self.remaining, &mut self.ended, |s| s.value(&mut Unpaced))?;
        self.ended |= item.is_err();
        Some(item)
    }
}

/// One step of a walk: the next item, then once the check that nothing follows, then nothing.
fn step<'a, T>(
    scanner: &mut Scanner<'a>,
    remaining: &mut u32,
    ended: &mut bool,
    read: impl FnOnce(&mut Scanner<'a>) -> Result<T, PayloadError>,
) -> Option<Result<T, PayloadError>> {
    if *ended {
        return None;
    }
    if let Some(left) = remaining.checked_sub(1) {
        *remaining = left;
        return Some(read(scanner));
    }
    *ended = true;
    expect_end(scanner.bytes, scanner.at).err().map(Err)
}

/// A position in a payload. `at` never passes `bytes.len()`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

/// Size of a value that has no contents of its own to look at (header and all), by marker; 0 = look closer.
/// Strings are in it only where UTF-8 is not checked, so they have a table of their own.
const PLAIN_BYTES: [u8; 256] = plain_bytes(false);
const PLAIN_BYTES_AND_SHORT_STRINGS: [u8; 256] = plain_bytes(true);
/// 1 for the markers that no map key may have.
const NO_KEY: [u8; 256] = no_key();

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn no_key() -> [u8; 256] {
    let mut table = [1; 256];
    let mut marker = 0;
    while marker < 256 {
        if let 0x00..=0x7f | 0xa0..=0xbf | 0xc2 | 0xc3 | 0xca..=0xd3 | 0xd9..=0xdb | 0xe0..=0xff = marker {
            table[marker] = 0;
        }
        marker += 1;
    }
    table
}

#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn plain_bytes(short_strings: bool) -> [u8; 256] {
    let mut table = [0; 256];
    let mut marker = 0;
    while marker < 256 {
        table[marker] = match marker {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
            0xa0..=0xbf if short_strings => 1 + (marker as u8 & 0x1f),
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 => 3,
            0xce | 0xd2 | 0xca => 5,
            0xcf | 0xd3 | 0xcb => 9,
            _ => 0,
        };
        marker += 1;
    }
    table
}

impl<'a> Scanner<'a> {
    /// Skips one value and returns the position behind it.
    pub(crate) fn skip_value<const UTF8: bool>(&mut self) -> Result<usize, PayloadError> {
        self.skip_value_inside::<UTF8>(0, &mut Unpaced)
    }

    /// `around`: containers that count as open already.
    #[inline]
    fn skip_value_inside<const UTF8: bool>(
        &mut self,
        around: usize,
        pace: &mut impl Pace,
    ) -> Result<usize, PayloadError> {
        let table = if UTF8 { &PLAIN_BYTES } else { &PLAIN_BYTES_AND_SHORT_STRINGS };
        // Values still to come in each open container, the innermost in `open`.
        let mut outer = [0u64; MAX_PAYLOAD_DEPTH];
        let mut depth = around;
        let mut open = 1u64;
        // Of the innermost: 1 where it is a map. Of the others a bit each, by depth.
        let mut in_map = 0u8;
        let mut outer_maps = 0u64;
        loop {
            while open == 0 {
                let Some(above) = depth.checked_sub(1).filter(|above| *above >= around) else { return Ok(self.at) };
                depth = above;
                open = outer.get(depth).copied().unwrap_or(0);
                in_map = u8::from(outer_maps & (1 << depth) != 0);
            }
            if !pace.goes_on(self.at) {
                return Err(PayloadError::Stopped);
            }
            open = open.wrapping_sub(1);
            let marker = *self.bytes.get(self.at).ok_or(PayloadError::Truncated)?;
            // An odd number is to come: this is a key, its value comes next.
            if NO_KEY.get(usize::from(marker)).copied().unwrap_or(0) & in_map & (open & 1) as u8 != 0 {
                return Err(PayloadError::BadKey { offset: self.at });
            }
            let plain = table.get(usize::from(marker)).copied().unwrap_or(0);
            if plain != 0 {
                let end = self.at.saturating_add(usize::from(plain));
                if end > self.bytes.len() {
                    return Err(PayloadError::Truncated);
                }
                self.at = end;
                continue;
            }
            let children = self.skip_header_or_leaf::<UTF8>()?;
            if let Some(children) = children {
                // Each child takes a byte at least: a claim beyond that cannot be kept.
                if children > self.left() as u64 {
                    return Err(PayloadError::Truncated);
                }
                *outer.get_mut(depth).ok_or(PayloadError::TooDeep)? = open;
                outer_maps = outer_maps & !(1 << depth) | u64::from(in_map) << depth;
                in_map = u8::from(matches!(marker, 0x80..=0x8f | 0xde | 0xdf));
                depth = depth.saturating_add(1);
                open = children;
            }
        }
    }

    /// Skips the header of a container and returns its number of children, or skips a str, bin or ext whole.
    fn skip_header_or_leaf<const UTF8: bool>(&mut self) -> Result<Option<u64>, PayloadError> {
        let offset = self.at;
        match self.marker()? {
            marker @ 0x80..=0x8f => Ok(Some(u64::from(marker & 0x0f).wrapping_mul(2))),
            marker @ 0x90..=0x9f => Ok(Some(u64::from(marker & 0x0f))),
            marker @ 0xa0..=0xbf => self.string::<UTF8>(usize::from(marker & 0x1f)),
            0xd9 => self.length::<1>().and_then(|length| self.string::<UTF8>(length as usize)),
            0xda => self.length::<2>().and_then(|length| self.string::<UTF8>(length as usize)),
            0xdb => self.length::<4>().and_then(|length| self.string::<UTF8>(length as usize)),
            0xc4 => self.length::<1>().and_then(|length| self.leaf(length as usize)),
            0xc5 => self.length::<2>().and_then(|length| self.leaf(length as usize)),
            0xc6 => self.length::<4>().and_then(|length| self.leaf(length as usize)),
            0xdc => self.length::<2>().map(|count| Some(u64::from(count))),
            0xdd => self.length::<4>().map(|count| Some(u64::from(count))),
            0xde => self.length::<2>().map(|count| Some(u64::from(count).wrapping_mul(2))),
            0xdf => self.length::<4>().map(|count| Some(u64::from(count).wrapping_mul(2))),
            marker @ 0xd4..=0xd8 => self.extension(1usize << (marker & 0x0f).wrapping_sub(4)),
            0xc7 => self.length::<1>().and_then(|length| self.extension(length as usize)),
            0xc8 => self.length::<2>().and_then(|length| self.extension(length as usize)),
            0xc9 => self.length::<4>().and_then(|length| self.extension(length as usize)),
            _ => Err(PayloadError::BadMarker { offset }),
        }
    }

    fn string<const UTF8: bool>(&mut self, length: usize) -> Result<Option<u64>, PayloadError> {
        let offset = self.at;
        let text = self.take(length)?;
        if UTF8 && std::str::from_utf8(text).is_err() {
            return Err(PayloadError::BadUtf8 { offset });
        }
        Ok(None)
    }

    fn leaf(&mut self, length: usize) -> Result<Option<u64>, PayloadError> {
        self.take(length).map(|_| None)
    }

    fn extension(&mut self, length: usize) -> Result<Option<u64>, PayloadError> {
        let kind = i8::from_be_bytes([self.marker()?]);
        let data = self.take(length)?;
        let first = data.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let nanoseconds = match (kind, length) {
            (-1, 4) => 0,
            // 30 bits of nanoseconds, then 34 of seconds
            (-1, 8) => first >> 2,
            (-1, 12) => first,
            _ => return Err(PayloadError::BadExtension { kind, length }),
        };
        if nanoseconds > 999_999_999 {
            return Err(PayloadError::BadTimestamp { nanoseconds });
        }
        Ok(None)
    }

    fn value(&mut self, pace: &mut impl Pace) -> Result<&'a [u8], PayloadError> {
        let start = self.at;
        let end = self.skip_value_inside::<false>(0, pace)?;
        self.bytes.get(start..end).ok_or(PayloadError::Truncated)
    }

    pub(crate) fn key(&mut self) -> Result<&'a str, PayloadError> {
        let offset = self.at;
        let length = match self.marker()? {
            marker @ 0xa0..=0xbf => u32::from(marker & 0x1f),
            0xd9 => self.length::<1>()?,
            0xda => self.length::<2>()?,
            0xdb => self.length::<4>()?,
            _ => return Err(PayloadError::KeyNotAString { offset }),
        };
        let offset = self.at;
        std::str::from_utf8(self.take(length as usize)?).map_err(|_| PayloadError::BadUtf8 { offset })
    }

    pub(crate) fn marker(&mut self) -> Result<u8, PayloadError> {
        let marker = *self.bytes.get(self.at).ok_or(PayloadError::Truncated)?;
        self.at = self.at.saturating_add(1);
        Ok(marker)
    }

    /// A big-endian length of `N` (1, 2 or 4) bytes.
    pub(crate) fn length<const N: usize>(&mut self) -> Result<u32, PayloadError> {
        Ok(self.take(N)?.iter().fold(0, |length, byte| (length << 8) | u32::from(*byte)))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], PayloadError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(PayloadError::Truncated)?;
        self.at = self.at.saturating_add(length);
        Ok(taken)
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

#[cfg(test)]
#[path = "payload_tests.rs"]
mod tests;
