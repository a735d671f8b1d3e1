//! The pristine image: linear memory after initialisation, and the plan by which an instance gets back to it.
//!
//! ```text
//!   0            stack top        data, bss      image heap                          end
//!   |  ........... [hot] [image pages | gap | image pages ...] [hot] ............ [last page]
//!        discard    zero     image      zero      image        zero     discard      image
//!                        [......... mapped from a file .......]
//! ```
//!
//! Every byte of the memory is in exactly one step of the plan, so a reset restores all of it, whatever the guest did.
//! Hot windows are zeroed in place because nearly every run touches them, and a page fault costs more than a memset.
//!
//! The pages of the image are a private mapping of one sealed memory file, so that instances share those that no handler ever
//! writes to. The kernel says which pages were ever written to (1 us), and a reset compares only those, and writes only where
//! something differs: a tiny handler dirties 22 of 68 image pages and 6 of the 16 of the heap window. A kernel that cannot say
//! it (before 6.7) costs 2 us more for each reset: every page is compared then.

use std::io;

use sha2::{Digest, Sha256};

use super::abi::SHADOW_STACK_BYTES;
use super::ffi::{LinearMemory, OutOfBounds};
use crate::os::{BlankFile, SealedFile};

pub(super) const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
/// Below the stack top.
const HOT_STACK_BYTES: usize = 16 << 10;
/// Behind the last image page of the heap.
const HOT_HEAP_BYTES: usize = 64 << 10;
/// A gap between image pages up to this size is zeroed, a larger one discarded.
const MAX_ZEROED_GAP_BYTES: usize = 64 << 10;
/// Between pages that the kernel is asked about together.
const MAX_DISCARDED_IN_WINDOW_BYTES: usize = 256 << 10;

/// One step of a reset. All addresses and lengths are whole pages.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Bytes of the image, from its buffer.
    Copy {
        at: u32,
        bytes: Box<[u8]>,
    },
    Zero {
        at: u32,
        len: usize,
    },
    Discard {
        at: u32,
        len: usize,
    },
}

/// The part of the image that instances map.
struct Backing {
    at: u32,
    len: usize,
    file: SealedFile,
}

/// The pristine state of a guest.
pub struct Image {
    steps: Vec<Step>,
    backing: Option<Backing>,
    memory_len: usize,
    resident_bytes: usize,
    stack_pointer: i32,
    digest: [u8; 32],
}

/// Which pages of a window may differ from the image, by the kernel's books: those that were never written to are still the
/// file's, or nothing. Not asked for few pages, where looking at them costs less.
struct Written {
    first: usize,
    pages: Option<[u64; Self::WORDS]>,
}

impl Written {
    const WORDS: usize = 8;
    const PAGES: std::ops::RangeInclusive<usize> = 4..=Self::WORDS * 64;

    /// Of neighbouring steps.
    fn within(memory: LinearMemory, steps: &[Step]) -> Self {
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Self::anything() };
        let from = first.at() as usize;
        let len = last.at() as usize + last.len() - from;
        if !Self::PAGES.contains(&(len / PAGE)) {
            return Self::anything();
        }
        let mut pages = [0; Self::WORDS];
        let scanned = memory.for_each_own_page(from as u32, len, |page| {
            if let Some(word) = pages.get_mut(page / 64) {
                *word |= 1 << (page % 64);
            }
        });
        Self { first: from / PAGE, pages: scanned.ok().map(|()| pages) }
    }

    fn anything() -> Self {
        Self { first: 0, pages: None }
    }

    fn may_have(&self, at: u32) -> bool {
        let Some(pages) = &self.pages else { return true };
        let index = at as usize / PAGE - self.first;
        pages.get(index / 64).is_none_or(|word| word >> (index % 64) & 1 == 1)
    }
}

/// A reset did not go through: the instance must not be used again.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the pristine image: {0}")]
pub struct ResetError(#[from] io::Error);

impl ResetError {
    /// What lies outside of the memory could not be restored.
    pub(super) fn outside() -> Self {
        Self(io::Error::other("the guest's stack is not as it was"))
    }
}

impl From<OutOfBounds> for ResetError {
    fn from(e: OutOfBounds) -> Self {
        Self(io::Error::other(e))
    }
}

impl Image {
    /// Takes the image of a guest that has just been initialised. `file`: where it is kept, as long as the memory.
    pub fn capture(memory: LinearMemory, stack_pointer: i32, file: BlankFile) -> io::Result<Self> {
        let mut image_pages: Vec<(usize, [u8; PAGE])> = Vec::new();
        let mut page = [0; PAGE];
        // most of the memory was never touched: reading it would fault in every page of it
        let touched = memory.touched_pages().ok();
        for at in (0..memory.len()).step_by(PAGE) {
            if touched.as_ref().is_some_and(|t| !t.get(at / PAGE).copied().unwrap_or(true)) {
                continue;
            }
            if memory.read(at as u32, &mut page).is_ok() && page != ZEROS {
                image_pages.push((at, page));
            }
        }
        let backing = back(&image_pages, memory.len(), file)?;
        let steps = plan(&image_pages, memory.len());
        let resident_bytes = image_pages.len() * PAGE;
        let digest = digest(&image_pages, memory.len(), stack_pointer);
        Ok(Self { steps, backing, memory_len: memory.len(), resident_bytes, stack_pointer, digest })
    }

    pub fn stack_pointer(&self) -> i32 {
        self.stack_pointer
    }

    /// SHA-256 of everything that an instance is restored to.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Bytes of an idle instance that cannot be zero.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// One page of a pristine memory.
    pub(super) fn page(&self, index: usize) -> &[u8; PAGE] {
        let at = index * PAGE;
        let behind = self.steps.partition_point(|step| step.at() as usize <= at);
        let step = behind.checked_sub(1).and_then(|i| self.steps.get(i));
        match step {
            Some(Step::Copy { at: start, bytes }) => {
                bytes.get(at - *start as usize..).and_then(|rest| rest.first_chunk()).unwrap_or(&ZEROS)
            }
            _ => &ZEROS,
        }
    }

    /// Puts the image into memory that nothing has run in yet.
    pub fn install(&self, memory: LinearMemory) -> Result<(), ResetError> {
        if let Some(backing) = &self.backing {
            memory.map_private(backing.at, backing.len, backing.file.as_fd())?;
        }
        self.restore(memory)
    }

    /// Restores every byte.
    pub fn restore(&self, memory: LinearMemory) -> Result<(), ResetError> {
        self.restore_by(memory, true)
    }

    /// `ask`: whether the kernel is asked what was written to; else every page is looked at.
    pub(super) fn restore_by(&self, memory: LinearMemory, ask: bool) -> Result<(), ResetError> {
        if memory.len() != self.memory_len {
            return Err(ResetError(io::Error::other("the memory has another size than the image")));
        }
        for window in self.steps.chunk_by(|step, next| !step.is_wide() && !next.is_wide()) {
            let written = if ask { Written::within(memory, window) } else { Written::anything() };
            for step in window {
                step.take(memory, &written)?;
            }
        }
        Ok(())
    }

    /// First address whose byte differs from the image. Looks at every page that holds something: for tests and soaks.
    pub fn first_difference(&self, memory: LinearMemory) -> Option<u32> {
        let touched = memory.touched_pages().ok();
        let mut page = [0; PAGE];
        for index in 0..memory.len() / PAGE {
            let expected = self.page(index);
            let is_zero = touched.as_ref().is_some_and(|t| t.get(index) == Some(&false));
            if is_zero && *expected == ZEROS {
                continue;
            }
            memory.read((index * PAGE) as u32, &mut page).ok()?;
            if page != *expected {
                let offset = page.iter().zip(expected).position(|(a, b)| a != b).unwrap_or_default();
                return Some((index * PAGE + offset) as u32);
            }
        }
        None
    }
}

impl Step {
    fn take(&self, memory: LinearMemory, written: &Written) -> Result<(), ResetError> {
        let mut pages = (self.at()..).step_by(PAGE).take(self.len() / PAGE);
        match self {
            Self::Copy { bytes, .. } => {
                for (at, page) in pages.zip(bytes.chunks(PAGE)) {
                    if written.may_have(at) && !memory.equals(at, page)? {
                        memory.write(at, page)?;
                    }
                }
            }
            Self::Zero { .. } => {
                for at in pages {
                    if written.may_have(at) && !memory.equals(at, &ZEROS)? {
                        memory.zero(at, PAGE)?;
                    }
                }
            }
            Self::Discard { at, len } => {
                if pages.any(|at| written.may_have(at)) {
                    memory.discard(*at, *len)?;
                }
            }
        }
        Ok(())
    }

    /// Whether it is one of those between windows.
    fn is_wide(&self) -> bool {
        matches!(self, Self::Discard { len, .. } if *len > MAX_DISCARDED_IN_WINDOW_BYTES)
    }

    fn len(&self) -> usize {
        match self {
            Self::Copy { bytes, .. } => bytes.len(),
            Self::Zero { len, .. } | Self::Discard { len, .. } => *len,
        }
    }

    fn at(&self) -> u32 {
        match self {
            Self::Copy { at, .. } | Self::Zero { at, .. } | Self::Discard { at, .. } => *at,
        }
    }
}

/// The image as a file: all of it but the last page, which stands alone far behind.
fn back(pages: &[(usize, [u8; PAGE])], memory_len: usize, file: BlankFile) -> io::Result<Option<Backing>> {
    let pages = pages.iter().filter(|(at, _)| at + PAGE < memory_len);
    let (Some((first, _)), Some((last, _))) = (pages.clone().next(), pages.clone().next_back()) else {
        return Ok(None);
    };
    let mut bytes = vec![0; last + PAGE - first];
    for (at, page) in pages {
        bytes[at - first..at - first + PAGE].copy_from_slice(page);
    }
    let file = file.seal(&bytes)?;
    Ok(Some(Backing { at: *first as u32, len: bytes.len(), file }))
}

fn digest(pages: &[(usize, [u8; PAGE])], memory_len: usize, stack_pointer: i32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((memory_len as u64).to_le_bytes());
    hash.update(stack_pointer.to_le_bytes());
    for (at, page) in pages {
        hash.update((*at as u64).to_le_bytes());
        hash.update(page);
    }
    hash.finalize().into()
}

fn plan(pages: &[(usize, [u8; PAGE])], memory_len: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = 0;
    let stack_top = SHADOW_STACK_BYTES as usize;
    // the last page holds the allocator's end mark; what lies before it is where the heap of the image ends
    let heap_end = pages.iter().rev().find(|(a, _)| *a + PAGE < memory_len).map_or(0, |(a, _)| a + PAGE);
    for (page_at, bytes) in pages {
        fill_gap(&mut steps, at, *page_at, stack_top, heap_end);
        match steps.last_mut() {
            Some(Step::Copy { at: start, bytes: run }) if *start as usize + run.len() == *page_at => {
                let mut joined = std::mem::take(run).into_vec();
                joined.extend_from_slice(bytes);
                *run = joined.into_boxed_slice();
            }
            _ => steps.push(Step::Copy { at: *page_at as u32, bytes: Box::new(*bytes) }),
        }
        at = page_at + PAGE;
    }
    fill_gap(&mut steps, at, memory_len, stack_top, heap_end);
    steps
}

/// Steps for the zero bytes from `from` to `to`.
fn fill_gap(steps: &mut Vec<Step>, from: usize, to: usize, stack_top: usize, heap_end: usize) {
    let mut cuts = vec![from];
    if to - from > MAX_ZEROED_GAP_BYTES {
        cuts.extend(
            [stack_top - HOT_STACK_BYTES, stack_top, heap_end, heap_end + HOT_HEAP_BYTES]
                .into_iter()
                .filter(|c| *c > from && *c < to),
        );
    }
    cuts.push(to);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        let &[start, end] = pair else { continue };
        if start == end {
            continue;
        }
        let hot = (start >= stack_top - HOT_STACK_BYTES && end <= stack_top)
            || (start >= heap_end && end <= heap_end + HOT_HEAP_BYTES);
        let small = to - from <= MAX_ZEROED_GAP_BYTES;
        let len = end - start;
        steps.push(if hot || small {
            Step::Zero { at: start as u32, len }
        } else {
            Step::Discard { at: start as u32, len }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(steps: &[Step], memory_len: usize) {
        let mut at = 0;
        for step in steps {
            let (start, len) = match step {
                Step::Copy { at, bytes } => (*at, bytes.len()),
                Step::Zero { at, len } | Step::Discard { at, len } => (*at, *len),
            };
            assert_eq!(start as usize, at, "{step:?}");
            at += len;
        }
        assert_eq!(at, memory_len);
    }

    #[test]
    fn every_byte_is_in_exactly_one_step() {
        let len = 64 << 20;
        let stack = SHADOW_STACK_BYTES as usize;
        let page = [1; PAGE];
        let layouts: [&[usize]; 4] = [
            &[],
            &[stack - PAGE, stack, stack + PAGE, stack + 9 * PAGE, stack + 300 * PAGE, len - PAGE],
            &[0, len - PAGE],
            &[stack - 3 * PAGE, len - 2 * PAGE],
        ];
        for layout in layouts {
            let pages: Vec<_> = layout.iter().map(|at| (*at, page)).collect();
            covered(&plan(&pages, len), len);
        }
    }
}
