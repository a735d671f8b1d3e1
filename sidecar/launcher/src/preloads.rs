//! What others want to be loaded before the program's own libraries: LD_PRELOAD, LD_AUDIT, and the file for all programs of the machine.
//! Allocators, tracers and the like are welcome. A libc is not, whatever its file is called, nor what cannot do without another libc
//! than the tree's, nor a library that the tree has itself: with two of one in a process neither works.

use nexus_launcher::image::{HEAD_BYTES, Image};
use nexus_launcher::names::{self, Of};
use nexus_launcher::place::{PathBuffer, file_name, is_of_a_libc, words};

use crate::system::{self, Start};
use crate::{LIBRARIES, give_up};

const OF_THE_MACHINE: &[u8] = b"/etc/ld.so.preload";

/// Of that file no more is looked at.
const LIST_BYTES: usize = 4096;

#[inline(never)]
pub fn refuse_a_second_libc(start: &Start) {
    for list in [b"LD_PRELOAD".as_slice(), b"LD_AUDIT"] {
        for word in words(start.variable(list).unwrap_or_default(), false) {
            refuse(word, list, b". Unset it", start);
        }
    }
    let mut bytes = [0; LIST_BYTES];
    for word in words(list_of_the_machine(&mut bytes), true) {
        refuse(word, OF_THE_MACHINE, b". Take it out of there", start);
    }
}

fn list_of_the_machine(into: &mut [u8]) -> &[u8] {
    let Ok(file) = system::open(b"/etc/ld.so.preload\0") else { return b"" };
    let len = system::read_at(&file, into, 0).unwrap_or(0);
    system::close(file);
    into.get(..len).unwrap_or_default()
}

fn refuse(word: &[u8], list: &[u8], advice: &[u8], start: &Start) {
    let name = file_name(word);
    let mut path = PathBuffer::new();
    let twice = is_ours(name)
        || is_of_a_libc(name)
        || if word.contains(&b'/') {
            path.set(word).is_ok() && is_twice(&path)
        } else {
            // The only other places where the loader looks for a mere name.
            let folders = start.variable(b"LD_LIBRARY_PATH").unwrap_or_default().split(|byte| b":;".contains(byte));
            let mut folders = folders.filter(|folder| !folder.is_empty());
            folders.any(|folder| {
                let at = [folder, b"/", word];
                path.set(b"").is_ok() && at.iter().all(|part| path.push(part).is_ok()) && is_twice(&path)
            })
        };
    if twice {
        let why = b"; this program has a libc and libraries of its own, and two of one do not work";
        give_up(&[list, b" names ", word, why, advice]);
    }
}

/// Whether a file is such a library, by what it says of itself.
#[inline(never)]
fn is_twice(path: &PathBuffer) -> bool {
    let Ok(file) = system::open(path.with_nul()) else { return false };
    let read = |into: &mut [u8], at: u64| system::read_at(&file, into, at).unwrap_or(0);
    let mut head = [0; HEAD_BYTES];
    let len = read(&mut head, 0);
    let twice = Image::parse(head.get(..len).unwrap_or_default()).is_ok_and(|image| {
        names::any(&image, read, |of, name| match of {
            Of::Itself => is_ours(name) || is_of_a_libc(name),
            Of::Wanted => is_of_a_libc(name) && !is_ours(name),
        })
    });
    system::close(file);
    twice
}

fn is_ours(name: &[u8]) -> bool {
    LIBRARIES.split('\n').any(|library| library.as_bytes() == name)
}
