//! What a library calls itself and which others it wants, whatever its file is called: read from its dynamic section, with bounds.

use crate::image::Image;

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

const ENTRY_BYTES: usize = 16;

/// More entries no library has.
const MOST_ENTRIES: usize = 1024;

/// Of longer names the rest is not read; none that matters is so long.
const NAME_BYTES: usize = 128;

/// Whose name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Itself,
    /// A library that it cannot do without.
    Wanted,
}

/// Whether `each` says so of one of its names. `read` fills as much as there is from a
/// place of the file on, and tells how much.
pub fn any(image: &Image, read: impl Fn(&mut [u8], u64) -> usize, each: impl Fn(Of, &[u8]) -> bool) -> bool {
    let strings = entries(image, &read).find(|(tag, _)| *tag == DT_STRTAB);
    let Some(strings) = strings.and_then(|(_, address)| image.offset_of(usize::try_from(address).ok()?)) else {
        return false;
    };
    entries(image, &read).any(|(tag, value)| {
        let of = match tag {
            DT_SONAME => Of::Itself,
            DT_NEEDED => Of::Wanted,
            _ => return false,
        };
        let mut name = [0; NAME_BYTES];
        let len = strings.checked_add(value).map_or(0, |at| read(&mut name, at));
        let name = name.get(..len).unwrap_or_default();
        each(of, name.split(|byte| *byte == 0).next().unwrap_or_default())
    })
}

/// Kinds and values of the dynamic section.
fn entries(image: &Image, read: impl Fn(&mut [u8], u64) -> usize) -> impl Iterator<Item = (u64, u64)> {
    let (address, len) = image.dynamic;
    let count = image.offset_of(address).map_or(0, |_| (len / ENTRY_BYTES).min(MOST_ENTRIES));
    let start = image.offset_of(address).unwrap_or_default();
    let entry = move |index: usize| {
        let mut bytes = [0; ENTRY_BYTES];
        let at = start.checked_add((index * ENTRY_BYTES) as u64)?;
        if read(&mut bytes, at) != ENTRY_BYTES {
            return None;
        }
        let (tag, value) = bytes.split_at(ENTRY_BYTES / 2);
        Some((u64::from_le_bytes(tag.try_into().ok()?), u64::from_le_bytes(value.try_into().ok()?)))
    };
    (0..count).map_while(entry).take_while(|(tag, _)| *tag != DT_NULL)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::image::HEAD_BYTES;

    /// A library of this machine that has both kinds of names.
    fn library() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.split_whitespace().find(|word| word.contains("/libgcc_s.so.1")).unwrap();
        std::fs::read(path).unwrap()
    }

    fn names(bytes: &[u8]) -> Vec<(Of, String)> {
        let Ok(image) = Image::parse(&bytes[..HEAD_BYTES.min(bytes.len())]) else { return Vec::new() };
        let read = |into: &mut [u8], at: u64| {
            let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let len = rest.len().min(into.len());
            into[..len].copy_from_slice(&rest[..len]);
            len
        };
        let found = RefCell::new(Vec::new());
        any(&image, read, |of, name| {
            found.borrow_mut().push((of, String::from_utf8_lossy(name).into_owned()));
            false
        });
        found.into_inner()
    }

    #[test]
    fn a_library_is_known_by_its_own_name_and_by_those_that_it_wants() {
        let names = names(&library());
        assert!(names.contains(&(Of::Itself, "libgcc_s.so.1".into())), "{names:?}");
        assert!(names.contains(&(Of::Wanted, "libc.so.6".into())), "{names:?}");
    }

    #[test]
    fn no_cut_and_no_change_of_its_dynamic_section_makes_it_panic() {
        let whole = library();
        let image = Image::parse(&whole[..HEAD_BYTES]).unwrap();
        let at = image.offset_of(image.dynamic.0).unwrap() as usize;
        for index in 0..image.dynamic.1 {
            for value in [0, 5, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at + index] = value;
                names(&changed);
            }
            names(&whole[..at + index]);
        }
    }
}
