//! The pristine image: linear memory after initialisation, and the plan by which an instance gets back to it.
//!
//! ```text
//!   0            stack top        data, bss      image heap                          end
//!   |  ........... [hot] [image pages | gap | image pages ...] [hot] ............ [last page]
//!        discard    zero     copy       zero       copy         zero     discard      copy
//! ```
//!
//! Every byte of the memory is in exactly one step of the plan, so a reset restores all of it, whatever the guest did.
//! Hot windows are zeroed in place because nearly every run touches them, and a page fault costs more than a memset.

use std::io;

use super::abi::SHADOW_STACK_BYTES;
use super::ffi::LinearMemory;

const PAGE: usize = 4096;
/// Below the stack top.
const HOT_STACK_BYTES: usize = 16 << 10;
/// Behind the last image page of the heap.
const HOT_HEAP_BYTES: usize = 64 << 10;
/// A gap between image pages up to this size is zeroed, a larger one discarded.
const MAX_ZEROED_GAP_BYTES: usize = 64 << 10;

/// One step of a reset.
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

/// The pristine state of a guest.
#[derive(Debug)]
pub struct Image {
    steps: Vec<Step>,
    memory_len: usize,
    resident_bytes: usize,
    stack_pointer: i32,
}

/// A reset did not go through: the instance must not be used again.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore the pristine image: {0}")]
pub struct ResetError(#[from] io::Error);

impl Image {
    /// Takes the image of a guest that has just been initialised.
    pub fn capture(memory: LinearMemory, stack_pointer: i32) -> Self {
        let mut image_pages: Vec<(usize, [u8; PAGE])> = Vec::new();
        let mut page = [0; PAGE];
        // most of the memory was never touched: reading it would fault in every page of it
        let touched = memory.touched_pages().ok();
        for at in (0..memory.len()).step_by(PAGE) {
            if touched.as_ref().is_some_and(|t| !t.get(at / PAGE).copied().unwrap_or(true)) {
                continue;
            }
            if memory.read(at as u32, &mut page).is_ok() && page.iter().any(|b| *b != 0) {
                image_pages.push((at, page));
            }
        }
        let steps = plan(&image_pages, memory.len());
        let resident_bytes = image_pages.len() * PAGE;
        Self { steps, memory_len: memory.len(), resident_bytes, stack_pointer }
    }

    pub fn stack_pointer(&self) -> i32 {
        self.stack_pointer
    }

    /// Bytes of an idle instance that cannot be zero.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Writes the image into memory that is still all zero.
    pub fn install(&self, memory: LinearMemory) -> Result<(), ResetError> {
        for step in &self.steps {
            if let Step::Copy { at, bytes } = step {
                memory.write(*at, bytes).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Restores every byte.
    pub fn restore(&self, memory: LinearMemory) -> Result<(), ResetError> {
        if memory.len() != self.memory_len {
            return Err(ResetError(io::Error::other("the memory has another size than the image")));
        }
        for step in &self.steps {
            match step {
                Step::Copy { at, bytes } => memory.write(*at, bytes).map_err(io::Error::other)?,
                Step::Zero { at, len } => memory.zero(*at, *len).map_err(io::Error::other)?,
                Step::Discard { at, len } => memory.discard(*at, *len)?,
            }
        }
        Ok(())
    }

    /// First address whose byte differs from the image. Looks at every page that holds something: for tests and soaks.
    pub fn first_difference(&self, memory: LinearMemory) -> Option<u32> {
        let touched = memory.touched_pages().ok();
        let zeros = [0; PAGE];
        let mut page = [0; PAGE];
        let mut copies = self.steps.iter().filter_map(|step| match step {
            Step::Copy { at, bytes } => Some((*at as usize, bytes)),
            Step::Zero { .. } | Step::Discard { .. } => None,
        });
        let mut run = copies.next();
        for at in (0..memory.len()).step_by(PAGE) {
            while run.is_some_and(|(start, bytes)| start + bytes.len() <= at) {
                run = copies.next();
            }
            let expected = run
                .filter(|(start, _)| *start <= at)
                .and_then(|(start, bytes)| bytes.get(at - start..at - start + PAGE));
            let is_zero = touched.as_ref().is_some_and(|t| t.get(at / PAGE) == Some(&false));
            if is_zero && expected.is_none() {
                continue;
            }
            memory.read(at as u32, &mut page).ok()?;
            let expected = expected.unwrap_or(&zeros);
            if page != expected {
                let offset = page.iter().zip(expected).position(|(a, b)| a != b).unwrap_or_default();
                return Some((at + offset) as u32);
            }
        }
        None
    }
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
