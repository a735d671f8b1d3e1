//! A suspended execution without its instance: the bytes of linear memory that differ from the pristine image, packed.
//!
//! ```text
//!   Instance (suspended) --park--> Parked + Instance (to be reset)        any pristine instance --unpark--> as it was
//! ```
//! In both suspend styles a suspended guest is linear memory and nothing else, so this is all of it: every page that the
//! kernel holds for the guest is looked at, and what is left out is equal to the image. A page is stored as the words in which
//! it differs (exclusive or against the image), behind a bitmap of them; that takes a small handler from 100 KB of pages to
//! 5 KB, and LZ4 to 2.3 KB in 15 us. (LZ4 over whole pages: 2.6 KB, 18 us to pack and 70 to unpack. Zstandard: a third less
//! for small handlers and half for large heaps, but two to four times the time, and a C library.)
//!
//! Guest memory is hostile: it is only ever bytes here. An image never leaves the process, so it is not authenticated; it is
//! checked to belong to the engine, and every length in it is checked all the same.

use std::io;

use super::context::Context;
use super::ffi::{LinearMemory, OutOfBounds};
use super::image::{Image, PAGE};
use crate::os;

const WORD: usize = 8;
const BITMAP_BYTES: usize = PAGE / WORD / 8;
const PAGE_HEADER_BYTES: usize = 4 + BITMAP_BYTES;
/// Pages are packed in blocks of this many bytes and a page more: scratch memory stays small however large the guest is.
const BLOCK_BYTES: usize = 256 << 10;

/// Why an execution cannot be parked, or an instance not take it up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParkError {
    #[error("no execution is suspended in the instance")]
    NothingSuspended,
    #[error("cannot find out which pages the guest has touched: {0}")]
    Pages(#[from] io::Error),
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    #[error("it was made by an engine with another image")]
    OtherImage,
    #[error("its bytes are damaged")]
    Damaged,
}

impl ParkError {
    /// Whether nothing can ever be parked here, and not only this or only now.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::Pages(e) if os::is_for_good(e))
    }
}

/// See the module. Dropping it ends the execution.
#[derive(Debug)]
pub struct Parked {
    pub(super) context: Box<Context>,
    pub(super) inbox_of_run: u32,
    image: [u8; 32],
    /// Pages that are in it.
    pages: u32,
    /// Blocks: packed length, compressed length (both u32), compressed bytes.
    pub(super) blocks: Box<[u8]>,
}

impl Parked {
    /// Takes down what `memory` holds beyond the image.
    pub(super) fn new(
        image: &Image,
        memory: LinearMemory,
        context: Box<Context>,
        inbox_of_run: u32,
    ) -> Result<Self, (ParkError, Box<Context>)> {
        match pack(image, memory) {
            Ok((blocks, pages)) => Ok(Self { context, inbox_of_run, image: *image.digest(), pages, blocks }),
            Err(e) => Err((e, context)),
        }
    }

    /// All the memory that this takes.
    pub fn held_bytes(&self) -> u64 {
        self.context.held_bytes() + self.bytes() as u64
    }

    /// Bytes of the pages that restoring it writes to.
    pub(super) fn page_bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE as u64
    }

    /// Bytes of the packed memory.
    pub fn bytes(&self) -> usize {
        self.blocks.len()
    }

    /// Writes the memory into one that is pristine.
    pub(super) fn restore(&self, image: &Image, memory: LinearMemory) -> Result<(), ParkError> {
        if self.image != *image.digest() {
            return Err(ParkError::OtherImage);
        }
        let mut rest = &*self.blocks;
        let mut packed = Vec::new();
        while !rest.is_empty() {
            let packed_len = take_u32(&mut rest)? as usize;
            let len = take_u32(&mut rest)? as usize;
            let (block, behind) = rest.split_at_checked(len).ok_or(ParkError::Damaged)?;
            rest = behind;
            if packed_len > BLOCK_BYTES + PAGE_HEADER_BYTES + PAGE {
                return Err(ParkError::Damaged);
            }
            packed.resize(packed_len, 0);
            let written = lz4_flex::block::decompress_into(block, &mut packed).map_err(|_| ParkError::Damaged)?;
            unpack(packed.get(..written).ok_or(ParkError::Damaged)?, memory)?;
        }
        Ok(())
    }
}

/// The blocks, and how many pages are in them.
fn pack(image: &Image, memory: LinearMemory) -> Result<(Box<[u8]>, u32), ParkError> {
    let (mut blocks, mut packed, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut page = [0; PAGE];
    for index in memory.pages_with_content()? {
        let at = u32::try_from(index * PAGE).map_err(|_| ParkError::Damaged)?;
        memory.read(at, &mut page)?;
        pages += u32::from(pack_page(index as u32, &page, image.page(index), &mut packed));
        if packed.len() >= BLOCK_BYTES {
            finish_block(&mut packed, &mut blocks);
        }
    }
    finish_block(&mut packed, &mut blocks);
    Ok((blocks.into_boxed_slice(), pages))
}

/// Appends a page, unless it is what the image has. Whether it did.
fn pack_page(index: u32, page: &[u8; PAGE], pristine: &[u8; PAGE], out: &mut Vec<u8>) -> bool {
    if page == pristine {
        return false;
    }
    out.extend_from_slice(&index.to_le_bytes());
    let bitmap_at = out.len();
    out.extend_from_slice(&[0; BITMAP_BYTES]);
    let words = page.as_chunks::<WORD>().0.iter().zip(pristine.as_chunks::<WORD>().0);
    for (i, (now, before)) in words.enumerate() {
        let difference = u64::from_ne_bytes(*now) ^ u64::from_ne_bytes(*before);
        if difference != 0 {
            out[bitmap_at + i / 8] |= 1 << (i % 8);
            out.extend_from_slice(&difference.to_ne_bytes());
        }
    }
    true
}

fn finish_block(packed: &mut Vec<u8>, blocks: &mut Vec<u8>) {
    if packed.is_empty() {
        return;
    }
    let compressed = lz4_flex::block::compress(packed);
    blocks.reserve_exact(compressed.len() + 2 * 4);
    blocks.extend_from_slice(&(packed.len() as u32).to_le_bytes());
    blocks.extend_from_slice(&(compressed.len() as u32).to_le_bytes());
    blocks.extend_from_slice(&compressed);
    packed.clear();
}

fn unpack(mut packed: &[u8], memory: LinearMemory) -> Result<(), ParkError> {
    let mut page = [0; PAGE];
    while !packed.is_empty() {
        let index = take_u32(&mut packed)?;
        let (bitmap, mut words) = packed.split_first_chunk::<BITMAP_BYTES>().ok_or(ParkError::Damaged)?;
        let at = index.checked_mul(PAGE as u32).ok_or(ParkError::Damaged)?;
        memory.read(at, &mut page)?;
        for (i, word) in page.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
            if bitmap[i / 8] & (1 << (i % 8)) != 0 {
                let (difference, behind) = words.split_first_chunk::<WORD>().ok_or(ParkError::Damaged)?;
                *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(*difference)).to_ne_bytes();
                words = behind;
            }
        }
        memory.write(at, &page)?;
        packed = words;
    }
    Ok(())
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, ParkError> {
    let (word, rest) = bytes.split_first_chunk::<4>().ok_or(ParkError::Damaged)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*word))
}
