//! Bytes to bodies: the length prefix, and nothing behind it.
//!
//! ```text
//!  buf:  [ consumed | unread ............ | spare (zeroed) | reserved  ]
//!          0        start                 end              buf.len()   capacity
//! ```
//!
//! Invariants: a length is checked before anything is reserved; the buffer grows with the bytes that arrived (at most
//! twofold), never to the length that was claimed; no call writes more than a small part of a large buffer, so that whoever
//! reads for many connections is never long at one of them; after an error the decoder stays in error.
//! What it does not do: read or write a socket, look into a body.

use std::ops::{Deref, Range};

use crate::limits::{FRAME_BUFFER_INITIAL_BYTES, FRAME_BUFFER_KEEP_BYTES, FRAME_HEADER_BYTES, FRAME_TAKE_OVER_BYTES};

/// So much of a large buffer is made ready at once.
const READY_BYTES: usize = 256 << 10;

/// The stream cannot be followed any further: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A body has at least the array that it consists of.
    #[error("a frame of length 0")]
    Empty,
    /// More than this side accepts.
    #[error("a frame of {length_bytes} bytes, more than the {max_bytes} that are accepted")]
    TooLarge {
        /// What the peer claimed.
        length_bytes: u64,
        /// What is in force.
        max_bytes: u64,
    },
}

/// Cuts a stream into bodies. One per connection and direction; owned by the thread that reads the socket.
///
/// Read into [`spare`](Self::spare), tell [`advance`](Self::advance) how much it was, then take bodies with
/// [`next_frame`](Self::next_frame) until it returns `None`.
#[derive(Debug)]
pub struct FrameDecoder {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    max_body_bytes: usize,
    /// Of a frame that nobody wants, what has not come yet.
    to_skip: usize,
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder that accepts bodies of up to `max_body_bytes`. Reserves nothing yet.
    pub fn new(max_body_bytes: usize) -> Self {
        Self { buf: Vec::new(), start: 0, end: 0, max_body_bytes, to_skip: 0, failed: None }
    }

    /// From the next frame on another bound is in force.
    pub const fn set_max_body_bytes(&mut self, max_body_bytes: usize) {
        self.max_body_bytes = max_body_bytes;
    }

    /// Room to read into, never empty. What was read before is kept.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if self.buf.capacity() > FRAME_BUFFER_KEEP_BYTES {
                self.buf = Vec::new();
            }
        }
        if self.end == self.buf.len() {
            self.make_room();
        }
        self.buf.get_mut(self.end..).unwrap_or_default()
    }

    /// Heap bytes that this decoder will hold after the next [`spare`](Self::spare): for callers that count them first.
    pub fn next_capacity_bytes(&self) -> usize {
        if self.start == self.end {
            let given_back = self.buf.capacity() > FRAME_BUFFER_KEEP_BYTES || self.buf.is_empty();
            return if given_back { FRAME_BUFFER_INITIAL_BYTES } else { self.buf.capacity() };
        }
        if self.end < self.buf.capacity() { self.buf.capacity() } else { self.grown() }
    }

    /// Says that the first `read_bytes` of [`spare`](Self::spare) now hold bytes of the stream.
    pub fn advance(&mut self, read_bytes: usize) {
        self.end = self.end.saturating_add(read_bytes).min(self.buf.len());
        if self.to_skip > 0 {
            let skipped = self.to_skip.min(self.buffered_bytes());
            self.start = self.start.saturating_add(skipped);
            self.to_skip = self.to_skip.saturating_sub(skipped);
        }
    }

    /// What has come of the body of the frame at the front. Empty before its length is known.
    pub fn begun(&self) -> &[u8] {
        let begun = self.buf.get(self.start.saturating_add(FRAME_HEADER_BYTES)..self.end).unwrap_or_default();
        if self.failed.is_some() { &[] } else { begun }
    }

    /// Throws the unfinished frame at the front away, and what is still to come of it when it comes. Returns the memory that
    /// is not needed any more: to free it may take a while.
    pub fn skip_frame(&mut self) -> Vec<u8> {
        let Some(whole) = self.pending_frame_bytes() else { return Vec::new() };
        let here = whole.min(self.buffered_bytes());
        self.start = self.start.saturating_add(here);
        self.to_skip = whole.saturating_sub(here);
        if self.start < self.end {
            return Vec::new();
        }
        (self.start, self.end) = (0, 0);
        std::mem::take(&mut self.buf)
    }

    /// Copies `bytes` in, for callers that have them elsewhere already.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let taken = spare.len().min(bytes.len());
            let (now, later) = bytes.split_at(taken);
            if let Some(room) = spare.get_mut(..taken) {
                room.copy_from_slice(now);
            }
            self.advance(taken);
            bytes = later;
        }
    }

    /// The next whole body, in place. `None`: read more.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameError> {
        Ok(match self.next_range()? {
            Some(range) => self.buf.get(range),
            None => None,
        })
    }

    /// The next whole body, to keep or to give to another thread. A large one takes the read buffer with it instead of
    /// being copied.
    pub fn next_owned(&mut self) -> Result<Option<OwnedFrame>, FrameError> {
        let Some(range) = self.next_range()? else { return Ok(None) };
        if range.len() < FRAME_TAKE_OVER_BYTES {
            let bytes = self.buf.get(range).unwrap_or_default().to_vec();
            return Ok(Some(OwnedFrame { range: 0..bytes.len(), bytes }));
        }
        let rest = self.buf.get(self.start..self.end).unwrap_or_default().to_vec();
        self.start = 0;
        self.end = rest.len();
        let bytes = std::mem::replace(&mut self.buf, rest);
        Ok(Some(OwnedFrame { bytes, range }))
    }

    /// Whether the stream may end here: nothing of an unfinished frame is held.
    pub fn is_at_boundary(&self) -> bool {
        self.start == self.end && self.to_skip == 0 && self.failed.is_none()
    }

    /// Bytes that arrived and were not handed out yet.
    pub fn buffered_bytes(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Heap bytes that this decoder holds.
    pub fn capacity_bytes(&self) -> usize {
        self.buf.capacity()
    }

    fn next_range(&mut self) -> Result<Option<Range<usize>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let unread = self.buf.get(self.start..self.end).unwrap_or_default();
        let Some((header, rest)) = unread.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = match self.checked_length(u32::from_le_bytes(*header)) {
            Ok(length) => length,
            Err(error) => {
                self.failed = Some(error);
                return Err(error);
            }
        };
        if rest.len() < length {
            return Ok(None);
        }
        let body_start = self.start.saturating_add(FRAME_HEADER_BYTES);
        let body_end = body_start.saturating_add(length);
        self.start = body_end;
        Ok(Some(body_start..body_end))
    }

    fn checked_length(&self, claimed: u32) -> Result<usize, FrameError> {
        let too_large =
            FrameError::TooLarge { length_bytes: u64::from(claimed), max_bytes: self.max_body_bytes as u64 };
        match usize::try_from(claimed).map_err(|_| too_large)? {
            0 => Err(FrameError::Empty),
            length if length > self.max_body_bytes => Err(too_large),
            length => Ok(length),
        }
    }

    /// What is ready is full. If all is: move the unread bytes to the front, and double the buffer where that yields less than
    /// half.
    fn make_room(&mut self) {
        if self.end == self.buf.capacity() {
            let wanted = self.grown();
            if self.start > 0 {
                self.buf.copy_within(self.start..self.end, 0);
                self.end = self.end.saturating_sub(self.start);
                self.start = 0;
            }
            self.buf.reserve_exact(wanted.saturating_sub(self.buf.len()));
        }
        let ready = self.end.saturating_add(READY_BYTES).min(self.buf.capacity());
        if ready > self.buf.len() {
            self.buf.resize(ready, 0);
        }
    }

    /// Capacity of the buffer once there is room in it: twofold where the unread bytes fill more than half of it.
    fn grown(&self) -> usize {
        let (unread, now) = (self.buffered_bytes(), self.buf.capacity());
        if unread <= now / 2 && now > 0 {
            return now;
        }
        // A frame that is known to fit is not grown past its own end.
        let whole_frame = self.pending_frame_bytes().unwrap_or(usize::MAX).max(FRAME_BUFFER_INITIAL_BYTES);
        let doubled = now.saturating_mul(2).max(FRAME_BUFFER_INITIAL_BYTES);
        doubled.min(whole_frame).max(unread.saturating_add(1)).max(now)
    }

    /// Size of the frame at the front, header included, once its header is there and valid.
    fn pending_frame_bytes(&self) -> Option<usize> {
        let header = self.buf.get(self.start..self.end)?.first_chunk::<FRAME_HEADER_BYTES>()?;
        let length = self.checked_length(u32::from_le_bytes(*header)).ok()?;
        length.checked_add(FRAME_HEADER_BYTES)
    }
}

/// A body that left the decoder.
#[derive(Clone, Debug)]
pub struct OwnedFrame {
    bytes: Vec<u8>,
    range: Range<usize>,
}

impl OwnedFrame {
    /// Heap bytes that it holds.
    pub const fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Deref for OwnedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn every_split_yields_the_same_frames() {
        let stream: Vec<u8> = [&b"a"[..], b"bcd", &[7; 300]].iter().flat_map(|body| frame(body)).collect();
        for split in 0..=stream.len() {
            let mut decoder = FrameDecoder::new(1000);
            let mut bodies = Vec::new();
            for part in [&stream[..split], &stream[split..]] {
                decoder.push(part);
                while let Some(body) = decoder.next_frame().unwrap() {
                    bodies.push(body.to_vec());
                }
            }
            assert_eq!(bodies, [b"a".to_vec(), b"bcd".to_vec(), vec![7; 300]], "split at {split}");
            assert!(decoder.is_at_boundary());
        }
    }

    #[test]
    fn what_the_buffer_will_take_is_known_before_it_is_taken() {
        for length in [1, 15_000, 16_380, 16_381, 70_000, 300_000] {
            let stream = frame(&vec![7; length]).repeat(3);
            for step in [1_000, 16_384, 100_000] {
                let mut decoder = FrameDecoder::new(1 << 20);
                for mut part in stream.chunks(step) {
                    while !part.is_empty() {
                        let announced = decoder.next_capacity_bytes();
                        let taken = decoder.spare().len().min(part.len());
                        assert!(decoder.capacity_bytes() <= announced, "{length}, {step}");
                        assert!(announced <= (2 * length).max(FRAME_BUFFER_INITIAL_BYTES) + FRAME_HEADER_BYTES);
                        let (now, later) = part.split_at(taken);
                        decoder.spare()[..taken].copy_from_slice(now);
                        decoder.advance(taken);
                        part = later;
                        while decoder.next_owned().unwrap().is_some() {}
                    }
                }
                assert!(decoder.is_at_boundary());
            }
        }
    }

    #[test]
    fn a_frame_that_nobody_wants_is_gone_when_it_has_come_and_the_next_one_is_whole() {
        let stream = [frame(&[1; 50_000]), frame(b"next")].concat();
        for begun in [5, 100, 20_000, 50_003] {
            for step in [1, 7_000, 60_000] {
                let mut decoder = FrameDecoder::new(1 << 20);
                decoder.push(&stream[..begun]);
                assert_eq!(decoder.next_frame(), Ok(None));
                assert_eq!(decoder.begun(), &stream[FRAME_HEADER_BYTES..begun]);
                decoder.skip_frame();
                assert!(!decoder.is_at_boundary());
                let mut found = Vec::new();
                for part in stream[begun..].chunks(step) {
                    decoder.push(part);
                    assert!(decoder.capacity_bytes() <= 2 * FRAME_BUFFER_INITIAL_BYTES);
                    found.extend(decoder.next_frame().unwrap().map(<[u8]>::to_vec));
                }
                assert_eq!(found, [b"next".to_vec()], "after {begun}, {step} at once");
                assert!(decoder.is_at_boundary());
            }
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_anything_is_reserved_and_for_good() {
        for (length, error) in [
            (0, FrameError::Empty),
            (101, FrameError::TooLarge { length_bytes: 101, max_bytes: 100 }),
            (u32::MAX, FrameError::TooLarge { length_bytes: u64::from(u32::MAX), max_bytes: 100 }),
        ] {
            let mut decoder = FrameDecoder::new(100);
            decoder.push(&length.to_le_bytes());
            assert_eq!(decoder.next_frame(), Err(error));
            assert!(decoder.capacity_bytes() <= FRAME_BUFFER_INITIAL_BYTES);
            decoder.push(&frame(b"x"));
            assert_eq!(decoder.next_frame(), Err(error));
            assert!(!decoder.is_at_boundary());
        }
    }

    #[test]
    fn memory_follows_the_bytes_that_arrived() {
        let mut decoder = FrameDecoder::new(64 << 20);
        decoder.push(&(64u32 << 20).to_le_bytes());
        for received in (0..2 << 20).step_by(4096) {
            decoder.push(&[0; 4096]);
            assert_eq!(decoder.next_frame(), Ok(None));
            assert!(decoder.capacity_bytes() <= 2 * (received + 4100) + FRAME_BUFFER_INITIAL_BYTES);
        }
    }

    #[test]
    fn however_large_a_frame_is_little_of_its_buffer_is_made_ready_at_once() {
        let mut decoder = FrameDecoder::new(64 << 20);
        decoder.push(&(20u32 << 20).to_le_bytes());
        let mut received = 0;
        while received < 20 << 20 {
            let before = decoder.buf.len();
            let room = decoder.spare().len();
            assert!(room > 0 && decoder.buf.len() <= before + READY_BYTES, "{received}");
            let part = room.min((20 << 20) - received);
            decoder.advance(part);
            received += part;
        }
        assert_eq!(decoder.next_owned().unwrap().map(|frame| frame.len()), Some(20 << 20));
    }

    #[test]
    fn the_buffer_of_a_large_frame_is_given_back() {
        let mut decoder = FrameDecoder::new(64 << 20);
        decoder.push(&frame(&vec![1; 3 << 20]));
        assert_eq!(decoder.next_frame().unwrap().map(<[u8]>::len), Some(3 << 20));
        decoder.spare();
        assert!(decoder.capacity_bytes() <= FRAME_BUFFER_KEEP_BYTES);
    }

    #[test]
    fn owned_frames_equal_borrowed_ones_and_leave_the_rest() {
        let mut decoder = FrameDecoder::new(1 << 20);
        let bodies = [vec![1; 10], vec![2; FRAME_TAKE_OVER_BYTES + 5], vec![3; 7]];
        for body in &bodies {
            decoder.push(&frame(body));
        }
        for body in &bodies {
            assert_eq!(&*decoder.next_owned().unwrap().unwrap(), &body[..]);
        }
        assert!(decoder.next_owned().unwrap().is_none());
        assert!(decoder.is_at_boundary());
    }
}
