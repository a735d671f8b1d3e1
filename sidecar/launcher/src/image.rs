//! How an ELF file lies in memory: its head, read with bounds, as the few numbers that mapping needs.

/// So much of a file's beginning holds its head; what has more segments is not one of ours.
pub const HEAD_BYTES: usize = 4096;

/// More segments than these no file of ours has.
pub const SEGMENTS: usize = 16;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
const X86_64: u16 = 62;
const SHARED: u16 = 3;

/// Why a file is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    NotElf,
    /// Its number in the file's head.
    OtherMachine(u16),
    /// It is cut off, or laid out as no linker does it.
    Malformed,
}

/// One part of the file that lies in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub offset: usize,
    /// From where the file begins in memory.
    pub address: usize,
    pub file_len: usize,
    pub memory_len: usize,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

/// A file that can lie anywhere in memory.
#[derive(Debug)]
pub struct Image {
    segments: [Segment; SEGMENTS],
    count: usize,
    pub entry: usize,
    /// Where its table of segments lies; 0 if no segment holds it, as in a loader, which nobody loads.
    pub table: usize,
    pub table_entry_len: usize,
    pub table_entries: usize,
    /// Where its dynamic section lies, and how long it is.
    pub dynamic: (usize, usize),
    pub span: usize,
    /// How long the file has to be for all of that to be in it.
    pub file_len: u64,
}

impl Image {
    /// Reads a file's head.
    pub fn parse(head: &[u8]) -> Result<Self, Fault> {
        if head.get(..6) != Some(b"\x7fELF\x02\x01".as_slice()) {
            return Err(Fault::NotElf);
        }
        let machine = short(head, 18)?;
        if machine != X86_64 {
            return Err(Fault::OtherMachine(machine));
        }
        if short(head, 16)? != SHARED {
            return Err(Fault::Malformed);
        }
        let (table, size, count) = (long(head, 32)?, short(head, 54)?, short(head, 56)?);
        let mut image = Self {
            segments: [Segment::default(); SEGMENTS],
            count: 0,
            entry: long(head, 24)?,
            table: 0,
            table_entry_len: usize::from(size),
            table_entries: usize::from(count),
            dynamic: (0, 0),
            span: 0,
            file_len: 0,
        };
        for index in 0..usize::from(count) {
            let skip = index.checked_mul(usize::from(size)).ok_or(Fault::Malformed)?;
            let at = table.checked_add(skip).ok_or(Fault::Malformed)?;
            let kind = word(head, at)?;
            let address = long(head, at + 16)?;
            match kind {
                PT_PHDR => image.table = address,
                PT_DYNAMIC => image.dynamic = (address, long(head, at + 40)?),
                PT_LOAD => image.add(head, at)?,
                _ => {}
            }
        }
        if image.count == 0 { Err(Fault::Malformed) } else { Ok(image) }
    }

    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    fn add(&mut self, head: &[u8], at: usize) -> Result<(), Fault> {
        let flags = word(head, at + 4)?;
        let segment = Segment {
            offset: long(head, at + 8)?,
            address: long(head, at + 16)?,
            file_len: long(head, at + 32)?,
            memory_len: long(head, at + 40)?,
            read: flags & 4 != 0,
            write: flags & 2 != 0,
            execute: flags & 1 != 0,
        };
        let end = segment.address.checked_add(segment.memory_len).ok_or(Fault::Malformed)?;
        let file_end = segment.offset.checked_add(segment.file_len).ok_or(Fault::Malformed)?;
        // In ascending order, in pages of their own, and with the bytes of a page in the file as in memory.
        let page = |address: usize| address & !(PAGE - 1);
        let ascending = page(segment.address) >= self.span || self.count == 0;
        let congruent = (segment.offset ^ segment.address) & (PAGE - 1) == 0;
        if !ascending || !congruent || segment.file_len > segment.memory_len || end > MOST_BYTES {
            return Err(Fault::Malformed);
        }
        *self.segments.get_mut(self.count).ok_or(Fault::Malformed)? = segment;
        self.count += 1;
        self.span = page(end + PAGE - 1);
        self.file_len = self.file_len.max(file_end as u64);
        Ok(())
    }
}

/// Of x86-64.
pub const PAGE: usize = 4096;

/// No file of ours takes more memory.
const MOST_BYTES: usize = 1 << 30;

fn short(bytes: &[u8], at: usize) -> Result<u16, Fault> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    Ok(u64::from_le_bytes(array(bytes, at)?) as usize)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Fault> {
    let end = at.checked_add(N).ok_or(Fault::Malformed)?;
    bytes.get(at..end).and_then(|bytes| bytes.try_into().ok()).ok_or(Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_program() -> Vec<u8> {
        let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        bytes.truncate(HEAD_BYTES);
        bytes
    }

    #[test]
    fn a_program_is_read_as_its_linker_wrote_it() {
        let image = Image::parse(&this_program()).unwrap();
        assert!(image.segments().len() >= 2 && image.table > 0 && image.dynamic.1 > 0);
        let entry = image.segments().iter().find(|s| (s.address..s.address + s.memory_len).contains(&image.entry));
        assert!(entry.unwrap().execute);
        assert!(image.segments().iter().all(|segment| !(segment.write && segment.execute)));
        assert!(image.segments().iter().all(|segment| segment.address + segment.memory_len <= image.span));
    }

    #[test]
    fn a_file_has_to_be_as_long_as_what_is_mapped_of_it() {
        let image = Image::parse(&this_program()).unwrap();
        let ends = image.segments().iter().map(|segment| (segment.offset + segment.file_len) as u64);
        assert_eq!(image.file_len, ends.max().unwrap());
        assert!(image.file_len <= std::fs::metadata(std::env::current_exe().unwrap()).unwrap().len());
    }

    #[test]
    fn another_machines_program_is_told_by_its_number() {
        let mut head = this_program();
        head[18] = 183;
        assert_eq!(Image::parse(&head).unwrap_err(), Fault::OtherMachine(183));
    }

    #[test]
    fn no_change_of_a_byte_and_no_cut_makes_it_panic() {
        let head = this_program();
        assert_eq!(Image::parse(b"#!/bin/sh").unwrap_err(), Fault::NotElf);
        for len in 0..700.min(head.len()) {
            let _ = Image::parse(&head[..len]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = head.clone();
                changed[len] = value;
                let _ = Image::parse(&changed);
            }
        }
    }
}
