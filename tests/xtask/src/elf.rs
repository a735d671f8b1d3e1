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
    fn a_file_that_is_cut_off_is_an_error() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in [6, 40, 63, 200] {
            let cut = Elf { bytes: bytes[..len].to_vec() };
            assert!(cut.needed().is_err() || cut.machine().is_err(), "{len}");
        }
    }
}
