//! Messages to bytes: a whole frame, or a map that stands in one, with large fields whose parts are shared.
//!
//! Invariants: on an error the buffer is as it was; memory beyond the bound is never taken; shared parts are not copied.
//! What it does not do: say what fields mean.

use std::io;

use rmp_serde::Serializer;
use serde::Serialize;

use crate::ids::RequestId;
use crate::limits::FRAME_HEADER_BYTES;
use crate::message::Kind;
use crate::pieces::Pieces;

/// A message that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The body would be larger than the peer accepts.
    #[error("the message is larger than the {max_bytes} bytes that a frame may have")]
    TooLarge {
        /// What is in force.
        max_bytes: usize,
    },
    /// The fields are not a MessagePack map.
    #[error("the message cannot be written as MessagePack")]
    Serialize(#[source] rmp_serde::encode::Error),
    /// [`encode_frame_with`] was given more fields than a small map has.
    #[error("the message has too many fields")]
    TooManyFields,
}

/// A field of which parts may be shared.
#[derive(Clone, Copy, Debug)]
pub enum LargeField<'a> {
    /// A `bin` of these bytes.
    Bin(&'a Pieces),
    /// These bytes, a MessagePack value already.
    Encoded(&'a Pieces),
}

impl LargeField<'_> {
    fn pieces(&self) -> &Pieces {
        match self {
            Self::Bin(pieces) | Self::Encoded(pieces) => pieces,
        }
    }
}

/// Appends one whole frame to `out`: the length is written in place, payloads are copied once. On an error `out` is
/// as it was. Memory beyond `max_body_bytes` is never taken.
pub fn encode_frame<T: Serialize + ?Sized>(
    kind: Kind,
    id: RequestId,
    fields: &T,
    max_body_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let frame_start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let written = bounded(max_body_bytes, out, |body| write_body(kind, id, fields, body));
    let length = written.inspect_err(|_| out.truncate(frame_start))?;
    if let Some(header) = out.get_mut(frame_start..).and_then(<[u8]>::first_chunk_mut) {
        *header = length.to_le_bytes();
    }
    Ok(())
}

/// As [`encode_frame`], and `large` as further fields behind the others. Their shared parts are not copied.
pub fn encode_frame_with<T: Serialize + ?Sized>(
    kind: Kind,
    id: RequestId,
    fields: &T,
    large: &[(&str, LargeField<'_>)],
    max_body_bytes: usize,
    out: &mut Pieces,
) -> Result<(), EncodeError> {
    let frame_start = out.own().len();
    encode_frame(kind, id, fields, max_body_bytes, out.own())?;
    let small = out.own().len().saturating_sub(frame_start.saturating_add(FRAME_HEADER_BYTES));
    let envelope = [FRAME_HEADER_BYTES, 1, uint_bytes(kind.number().into()), uint_bytes(id.0)];
    let map_at = envelope.into_iter().fold(frame_start, usize::saturating_add);
    let added = add_fields(map_at, small, large, max_body_bytes, out);
    let added = added.inspect_err(|_| out.own().truncate(frame_start))?;
    if let Some(header) = out.own().get_mut(frame_start..).and_then(<[u8]>::first_chunk_mut) {
        *header = (small.saturating_add(added) as u32).to_le_bytes();
    }
    Ok(())
}

/// Appends a map of `fields` and `large` alone, for a message that has it inside.
pub fn encode_map_with<T: Serialize + ?Sized>(
    fields: &T,
    large: &[(&str, LargeField<'_>)],
    max_bytes: usize,
    out: &mut Pieces,
) -> Result<(), EncodeError> {
    let start = out.own().len();
    let small = bounded(max_bytes, out.own(), |body| fields.serialize(&mut Serializer::new(body).with_struct_map()))?;
    let added = add_fields(start, small as usize, large, max_bytes, out);
    added.map(drop).inspect_err(|_| out.own().truncate(start))
}

/// Adds fields to the small map that begins at `map_at` and ends where the bytes do. `small`: what there is so far. Returns the bytes
/// that came; on an error what was written after `small` is the caller's to cut.
fn add_fields(
    map_at: usize,
    small: usize,
    large: &[(&str, LargeField<'_>)],
    max_bytes: usize,
    out: &mut Pieces,
) -> Result<usize, EncodeError> {
    let lengths = large.iter().flat_map(|(key, field)| [FIELD_OVERHEAD_BYTES, key.len(), field.pieces().len()]);
    if lengths.fold(small, usize::saturating_add) > max_bytes.min(u32::MAX as usize) {
        return Err(EncodeError::TooLarge { max_bytes });
    }
    let fields = out.own().get(map_at).copied().and_then(|marker| marker.checked_add(u8::try_from(large.len()).ok()?));
    let (Some(fields @ 0x80..=0x8f), Some(marker)) = (fields, out.own().get_mut(map_at)) else {
        return Err(EncodeError::TooManyFields);
    };
    *marker = fields;
    let before = out.len();
    for (key, field) in large {
        let own = out.own();
        // writing to a Vec cannot fail
        let _ = rmp::encode::write_str(own, key);
        if let LargeField::Bin(pieces) = field {
            let _ = rmp::encode::write_bin_len(own, pieces.len() as u32);
        }
        out.append(field.pieces());
    }
    Ok(out.len().saturating_sub(before))
}

/// Of a field beside its key and its bytes: the headers of both, at most.
const FIELD_OVERHEAD_BYTES: usize = 10;

/// Bytes of a number in MessagePack.
const fn uint_bytes(number: u32) -> usize {
    match number {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}

fn write_body<T: Serialize + ?Sized>(
    kind: Kind,
    id: RequestId,
    fields: &T,
    body: &mut Bounded<'_>,
) -> Result<(), rmp_serde::encode::Error> {
    rmp::encode::write_array_len(body, 3)?;
    rmp::encode::write_uint(body, u64::from(kind.number()))?;
    rmp::encode::write_uint(body, u64::from(id.0))?;
    fields.serialize(&mut Serializer::new(body).with_struct_map())
}

/// Runs `write` on the end of a buffer, of which it may take so much. Returns what it took.
fn bounded(
    max_bytes: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Bounded<'_>) -> Result<(), rmp_serde::encode::Error>,
) -> Result<u32, EncodeError> {
    let start = out.len();
    let mut body = Bounded { room: max_bytes.min(u32::MAX as usize), written: 0, overflowed: false, out };
    let result = write(&mut body);
    let Bounded { written, overflowed, .. } = body;
    match (result, u32::try_from(written)) {
        (Ok(()), Ok(length)) => Ok(length),
        (result, _) => {
            out.truncate(start);
            Err(match result {
                Err(error) if !overflowed => EncodeError::Serialize(error),
                _ => EncodeError::TooLarge { max_bytes },
            })
        }
    }
}

/// Appends to a buffer and fails, instead of growing it, at a bound.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
    written: usize,
    overflowed: bool,
}

impl io::Write for Bounded<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(room) = self.room.checked_sub(bytes.len()) else {
            self.overflowed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.room = room;
        self.written = self.written.saturating_add(bytes.len());
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_maximum_leaves_the_output_untouched() {
        let mut out = vec![9];
        let fields = std::collections::BTreeMap::from([("k", "0123456789")]);
        encode_frame(Kind::Ping, RequestId(1), &fields, 17, &mut out).unwrap();
        assert_eq!(out.len(), 1 + 4 + 17);
        out.truncate(1);
        let error = encode_frame(Kind::Ping, RequestId(1), &fields, 16, &mut out).unwrap_err();
        assert!(matches!(error, EncodeError::TooLarge { max_bytes: 16 }));
        assert_eq!(out, [9]);
    }

    #[test]
    fn a_map_that_stands_in_a_message_is_bounded_and_shares_what_is_large() {
        let (mut large, mut out) = (Pieces::new(), Pieces::new());
        large.push(crate::Shared::new(vec![7; 2_000]).into());
        let fields = std::collections::BTreeMap::from([("k", 1)]);
        let more = [("v", LargeField::Bin(&large))];
        out.own().push(9);
        encode_map_with(&fields, &more, 3_000, &mut out).unwrap();
        let whole: Vec<u8> = out.iter().flatten().copied().collect();
        let expected = [&[9, 0x82, 0xa1, b'k', 1, 0xa1, b'v', 0xc5, 0x07, 0xd0][..], &[7; 2_000]].concat();
        assert_eq!(whole, expected);
        let error = encode_map_with(&fields, &more, 2_000, &mut out).unwrap_err();
        assert!(matches!(error, EncodeError::TooLarge { max_bytes: 2_000 }));
        assert_eq!(out.len(), expected.len(), "nothing of it is there");
    }
}
