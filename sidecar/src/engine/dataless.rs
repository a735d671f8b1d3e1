//! The guest module without its data segments, for every instance but the first.
//!
//! WasmEdge keeps a copy of all data segments in each instance, also after they were written to its memory: 100 KB that nobody
//! reads again. The pristine image holds what they initialise, so only the instance that the image is taken from needs them.
//! Here the sections are renamed, in place, to custom ones, which mean nothing; sizes and offsets stay, and so does the native
//! code around the module.

const MAGIC: &[u8] = b"\0asm\x01\0\0\0";
const CUSTOM: u8 = 0;
const CODE: u8 = 10;
const DATA: u8 = 11;
const DATA_COUNT: u8 = 12;

/// Takes the data sections away. False: there is no WebAssembly module in it, or none that has any.
pub fn remove_data(bytes: &mut [u8]) -> bool {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    let found = starts.map(|(at, _)| at + MAGIC.len()).find_map(|at| data_sections(bytes, at));
    let Some(sections) = found.filter(|sections| !sections.is_empty()) else { return false };
    for section in sections {
        // the name of a custom section, an empty one
        for (at, byte) in [(section.id_at, CUSTOM), (section.content_at, 0)] {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
    }
    true
}

struct Section {
    id_at: usize,
    content_at: usize,
}

/// Walks the sections of a module, whose first is at `at`. None: there is no module of ours there.
fn data_sections(bytes: &[u8], mut at: usize) -> Option<Vec<Section>> {
    let mut found = Vec::new();
    let mut code = false;
    loop {
        let id = *bytes.get(at)?;
        let (len, content_at) = leb(bytes, at + 1)?;
        match id {
            CODE => code = true,
            DATA | DATA_COUNT if len > 0 => found.push(Section { id_at: at, content_at }),
            _ if id > DATA_COUNT => return None,
            _ => {}
        }
        if id == DATA {
            // comes last
            return code.then_some(found);
        }
        at = content_at.checked_add(len)?;
    }
}

/// An unsigned LEB128 number of 32 bits, and where it ends.
fn leb(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0;
    for i in 0..5 {
        let byte = *bytes.get(at.checked_add(i)?)?;
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, at + i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use nexus_protocol::message::SuspendMode;

    use super::super::load::{BuiltIn, built_in};
    use super::*;

    fn removed(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        remove_data(&mut bytes).then_some(bytes)
    }

    #[test]
    fn only_the_heads_of_two_sections_change() {
        let (direct, stack) = (built_in(SuspendMode::Await), built_in(SuspendMode::Stack));
        let native = |guest: &BuiltIn| guest.native().unwrap().code.bytes().unwrap();
        for bytes in [direct.wasm.bytes().unwrap(), native(direct), stack.wasm.bytes().unwrap(), native(stack)] {
            let patched = removed(&bytes).expect("the guest has data");
            assert_eq!(patched.len(), bytes.len());
            let changed = bytes.iter().zip(&patched).filter(|(a, b)| a != b).count();
            assert!((2..=4).contains(&changed), "{changed}");
            assert!(removed(&patched).is_none());
        }
    }

    #[test]
    fn what_is_no_module_is_left_alone() {
        assert!(removed(b"").is_none());
        assert!(removed(MAGIC).is_none());
        assert!(removed(b"\0asm\x01\0\0\0\x0b\x01\x00").is_none(), "data without code");
        assert!(removed(b"\0asm\x01\0\0\0\x0a\xff\xff\xff\xff\xff").is_none());
        let head = &built_in(SuspendMode::Await).wasm.bytes().unwrap()[..4096];
        assert!((0..head.len()).all(|len| removed(&head[..len]).is_none()));
    }
}
