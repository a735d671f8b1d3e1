//! What is asked of ELF files: which libraries they want, for which machine they are, and the few bytes that a package
//! changes in them. 64 bits, little-endian. Reads with bounds; a file that is not as it should be is an error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
/// In [`DT_FLAGS_1`]: what it wants is looked for on search paths alone, never where the machine has its own libraries.
const DF_1_NODEFLIB: u64 = 0x800;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// What `e_machine` says of x86-64.
pub const X86_64: u16 = 62;

/// A file of machine code, in memory.
pub struct Elf {
    bytes: Vec<u8>,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    len: u64,
}

struct Dynamic {
    /// Where the entry stands in the file.
    at: usize,
    tag: u64,
    value: u64,
}

impl Elf {
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            bail!("{} is no 64-bit little-endian ELF file", path.display());
        }
        Ok(Self { bytes })
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn machine(&self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array(18)?))
    }

    /// The libraries that it asks for, by name.
    pub fn needed(&self) -> Result<Vec<String>> {
        self.strings(DT_NEEDED)
    }

    pub fn interpreter(&self) -> Result<Option<String>> {
        let segment = self.segments()?.into_iter().find(|segment| segment.kind == PT_INTERP);
        segment.map(|segment| self.string(usize::try_from(segment.offset)?)).transpose()
    }

    /// Has its search path looked at before that of the environment: what an LD_LIBRARY_PATH names is made for other programs.
    pub fn prefer_own_search_path(&mut self) -> Result<()> {
        for entry in self.dynamic()?.iter().filter(|entry| entry.tag == DT_RUNPATH) {
            self.bytes[entry.at..entry.at + 8].copy_from_slice(&DT_RPATH.to_le_bytes());
        }
        Ok(())
    }

    /// Has what it wants looked for on its search path, or on that of the program that loads it, and never among the machine's own.
    pub fn keep_to_search_paths(&mut self) -> Result<()> {
        let dynamic = self.dynamic()?;
        let (at, flags) = match dynamic.iter().find(|entry| entry.tag == DT_FLAGS_1) {
            Some(entry) => (entry.at, entry.value),
            None => (self.spare_entry()?, 0),
        };
        self.bytes[at..at + 8].copy_from_slice(&DT_FLAGS_1.to_le_bytes());
        self.bytes[at + 8..at + 16].copy_from_slice(&(flags | DF_1_NODEFLIB).to_le_bytes());
        Ok(())
    }

    pub fn keeps_to_search_paths(&self) -> Result<bool> {
        Ok(self.dynamic()?.iter().any(|entry| entry.tag == DT_FLAGS_1 && entry.value & DF_1_NODEFLIB != 0))
    }

    /// The end of the dynamic section, if another end follows: linkers leave some.
    fn spare_entry(&self) -> Result<usize> {
        let segment = self.segments()?.into_iter().find(|segment| segment.kind == PT_DYNAMIC);
        let (start, len) = segment.map(|segment| (segment.offset, segment.len)).context("it has no dynamic section")?;
        let at = usize::try_from(start)? + 16 * self.dynamic()?.len();
        if at as u64 + 32 > start + len || self.number(at + 16)? != DT_NULL {
            bail!("its dynamic section has no entry to spare");
        }
        Ok(at)
    }

    fn strings(&self, tag: u64) -> Result<Vec<String>> {
        let dynamic = self.dynamic()?;
        let Some(table) = dynamic.iter().find(|entry| entry.tag == DT_STRTAB) else { return Ok(Vec::new()) };
        let table = self.offset_of(table.value)?;
        let named = dynamic.iter().filter(|entry| entry.tag == tag);
        named.map(|entry| self.string(usize::try_from(table + entry.value)?)).collect()
    }

    fn dynamic(&self) -> Result<Vec<Dynamic>> {
        let mut entries = Vec::new();
        let Some(segment) = self.segments()?.into_iter().find(|segment| segment.kind == PT_DYNAMIC) else {
            return Ok(entries);
        };
        let start = usize::try_from(segment.offset)?;
        for at in (start..start + usize::try_from(segment.len)?).step_by(16) {
            let (tag, value) = (self.number(at)?, self.number(at + 8)?);
            if tag == DT_NULL {
                break;
            }
            entries.push(Dynamic { at, tag, value });
        }
        Ok(entries)
    }

    fn segments(&self) -> Result<Vec<Segment>> {
        let start = usize::try_from(self.number(32)?)?;
        let (size, count) = (u16::from_le_bytes(self.array(54)?), u16::from_le_bytes(self.array(56)?));
        (0..usize::from(count))
            .map(|index| {
                let at = start + index * usize::from(size);
                Ok(Segment {
                    kind: u32::from_le_bytes(self.array(at)?),
                    offset: self.number(at + 8)?,
                    address: self.number(at + 16)?,
                    len: self.number(at + 32)?,
                })
            })
            .collect()
    }

    /// Where what lies at this address in memory stands in the file.
    fn offset_of(&self, address: u64) -> Result<u64> {
        let segments = self.segments()?;
        let holds = |segment: &&Segment| {
            segment.kind == PT_LOAD && (segment.address..segment.address + segment.len).contains(&address)
        };
        let segment = segments.iter().find(holds).context("an address of it is in no segment")?;
        Ok(address - segment.address + segment.offset)
    }

    fn string(&self, at: usize) -> Result<String> {
        let rest = self.bytes.get(at..).context("a name of it is beyond its end")?;
        let len = rest.iter().position(|byte| *byte == 0).context("a name of it has no end")?;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    fn number(&self, at: usize) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let bytes = self.bytes.get(at..at + N).context("the file is cut off")?;
        Ok(bytes.try_into()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_wants_a_libc_and_is_for_this_machine() {
        let this = Elf::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(this.needed().unwrap().iter().any(|name| name.starts_with("libc.so")));
        assert_eq!(this.machine().unwrap() == X86_64, cfg!(target_arch = "x86_64"));
        assert!(this.interpreter().unwrap().unwrap().contains("ld-"));
    }

    #[test]
    fn it_keeps_to_search_paths_and_wants_what_it_wanted() {
        let mut this = Elf::read(&std::env::current_exe().unwrap()).unwrap();
        let wanted = this.needed().unwrap();
        assert!(!this.keeps_to_search_paths().unwrap());
        for without in [false, true] {
            if without {
                // A linker that had no flags to write: what follows them moves up, which leaves an entry to spare.
                let all = this.dynamic().unwrap();
                let flags = all.iter().position(|entry| entry.tag == DT_FLAGS_1).unwrap();
                let (at, end) = (all[flags].at, all.last().unwrap().at + 16);
                this.bytes.copy_within(at + 16..end + 16, at);
                this.bytes[end..end + 16].fill(0);
                assert!(!this.keeps_to_search_paths().unwrap());
            }
            this.keep_to_search_paths().unwrap();
            assert!(this.keeps_to_search_paths().unwrap());
            assert_eq!(this.needed().unwrap(), wanted);
        }
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in [6, 40, 63, 200] {
            let cut = Elf { bytes: bytes[..len].to_vec() };
            assert!(cut.needed().is_err() || cut.machine().is_err(), "{len}");
        }
    }
}
