//! What is called `nexus-sidecar` in a package: finds the tree that it stands in, maps the program and the loader beside it into this
//! very process, and enters the loader as the kernel would have.
//!
//! ```text
//!  TREE/bin/nexus-sidecar   this
//!  TREE/lib/nexus-sidecar   the program, with the libraries and the loader that it is made for
//! ```
//!
//! A single file has its tree behind it, and the tree is unpacked into the user's cache first (`unpack.rs`).
//!
//! Nothing is executed a second time: process, name, arguments, environment, descriptors, signals and the wish to die with the
//! parent are those that the kernel gave, and `/proc/self/exe` is this file, which can be executed again.
//!
//! One rule says what is in the process: the files beside this, each of which has to be what it was when the package was made, and
//! nothing else. No variable that begins with `LD_` reaches the loader, and our loader looks for no list of the machine's.
//!
//! Needs no libc, no `/proc`, no search path and no current folder. Whatever is wrong is said on standard error.
#![no_std]
#![no_main]

mod system;
mod unpack;

use nexus_launcher::image::{Fault, HEAD_BYTES, Image, PAGE};
use nexus_launcher::parcel::Label;
use nexus_launcher::place::{PathBuffer, TooLong, means_something_in_a_list};
use nexus_launcher::sum::{self, Sum, Whole};

use system::{
    EACCES, EIO, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENOENT, ENOMEM, ENOTDIR, EPERM, Errno, File, Space, Start,
};

/// Of the sidecar: the engine cannot be brought up.
const EXIT_CODE: u8 = 5;

const PROGRAM: &[u8] = b"nexus-sidecar";
const LOADER: &[u8] = b"ld-linux-x86-64.so.2";

/// What stands in `lib`, and what each has to be, with a line feed between them.
const FILES: &str = env!("NEXUS_TREE_FILES");

const DT_STRTAB: usize = 5;
const DT_RPATH: usize = 15;

/// Address space that the loader and the program need at least beside what is mapped of the files.
const SPARE_BYTES: usize = 16 << 20;

/// As many links as the kernel itself follows.
const MOST_LINKS: usize = 40;

/// Variables that begin so, and those of them that name what is to be loaded, which is said.
const OF_THE_LOADER: (&[u8], [&[u8]; 2]) = (b"LD_", [b"LD_PRELOAD=", b"LD_AUDIT="]);

/// Where the tree is found, and by what.
struct Tree {
    /// The path of `lib`.
    lib: PathBuffer,
    found: Found,
    /// This file is no longer at its place: another one may be.
    replaced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// By the kernel's name for the running file. The loader asks for the same, and so finds the libraries by itself.
    ByKernel,
    /// By the name that it was started as.
    ByName,
    /// Where this file has unpacked it.
    Unpacked,
}

/// Maps everything and tells where to go on.
fn launch(start: &mut Start) -> usize {
    if start.has_foreign_rights() {
        give_up(&[
            b"this program is not made to run with rights that its user does not have (set-user-ID, file capabilities)",
        ]);
    }
    if start.take_from_environment(OF_THE_LOADER) {
        system::say(
            b"nexus-sidecar: LD_PRELOAD and LD_AUDIT are for other programs; this one loads nothing but what it was packed with\n",
        );
    }
    let tree = match Label::parse(&system::label()) {
        Some(label) => Tree { lib: unpack::tree(label, start), found: Found::Unpacked, replaced: false },
        None => find(start),
    };
    if tree.replaced {
        is_of_this_version(&tree.lib);
    }
    // All of it is looked at before anything is entered: neither the loader nor the processor says what is wrong with a file.
    let mut span = SPARE_BYTES;
    for (name, whole) in files() {
        let path = beside(&tree.lib, name.as_bytes());
        let (file, image) = image_of(&path, tree.found);
        // What has just been unpacked or looked at by the single file is known to be whole.
        if tree.found != Found::Unpacked && sum_of(&file, whole.len) != Ok(whole) {
            damaged(&path);
        }
        system::close(file);
        span += image.span;
    }
    if let Err(error) = system::has_room(span) {
        unusable(&tree.lib, error, tree.found);
    }
    let (program, program_at) = map(&beside(&tree.lib, PROGRAM), tree.found);
    if program.table == 0 {
        damaged(&beside(&tree.lib, PROGRAM));
    }
    let (loader, loader_at) = map(&beside(&tree.lib, LOADER), tree.found);
    if tree.found != Found::ByKernel {
        name_libraries(&program, &program_at, &tree);
    }
    start.describe(
        loader_at.start,
        program_at.start + program.entry,
        program_at.start + program.table,
        program.table_entry_len,
        program.table_entries,
    );
    loader_at.start + loader.entry
}

/// What a sidecar starts once more after an upgrade would speak another version's words with it.
fn is_of_this_version(lib: &PathBuffer) {
    for (name, whole) in files() {
        let path = beside(lib, name.as_bytes());
        let found = system::open(path.with_nul()).and_then(|file| {
            let sum = sum_of(&file, whole.len);
            system::close(file);
            sum
        });
        if found != Ok(whole) {
            give_up(&[
                b"this program was replaced or removed while it ran, and ",
                path.as_bytes(),
                b" is not of its version; start it anew",
            ]);
        }
    }
}

fn files() -> impl Iterator<Item = (&'static str, Whole)> {
    FILES.split('\n').filter_map(sum::parse)
}

/// What the file is; one of another length is not read.
#[inline(never)]
fn sum_of(file: &File, len: u64) -> Result<Whole, Errno> {
    let found = system::status_of(file)?.len;
    if found != len {
        return Ok(Whole { len: found, sum: 0 });
    }
    let mut sum = Sum::new();
    system::show(file, len as usize, |bytes| sum.add(bytes))?;
    Ok(Whole { len, sum: sum.end(len) })
}

/// The kernel knows by which file it started this. Where that is not told (no `/proc`) or leads nowhere here (another root), the
/// path that it was started by does.
fn find(start: &Start) -> Tree {
    let mut itself = PathBuffer::new();
    if read_link(b"/proc/self/exe\0", &mut itself) {
        // The file may have been replaced while it ran.
        let marked = system::is_readable(itself.with_nul()).is_err() && or_too_long(itself.without_mark());
        if let Some(lib) = lib_of(itself.clone()) {
            return Tree { lib, found: Found::ByKernel, replaced: marked };
        }
        if marked {
            give_up(&[b"the installation that this program was part of is no longer at ", itself.as_bytes()]);
        }
    }
    let Some(name) = start.started_as() else {
        give_up(&[b"neither /proc nor the kernel tells where this program stands"]);
    };
    or_too_long(itself.set(name));
    let mut target = PathBuffer::new();
    for _ in 0..MOST_LINKS {
        if !read_link_at(&itself, &mut target) {
            break;
        }
        or_too_long(itself.follow(target.as_bytes()));
    }
    match lib_of(itself.clone()) {
        Some(lib) => Tree { lib, found: Found::ByName, replaced: false },
        None => give_up(&[
            b"there is no lib/",
            PROGRAM,
            b" beside the folder of ",
            itself.as_bytes(),
            b". The folders bin and lib of a package belong together: make a link to this program rather than a copy, \
            or install the package anew",
        ]),
    }
}

/// `lib` beside the folder of a program, if our program is in it.
fn lib_of(mut path: PathBuffer) -> Option<PathBuffer> {
    or_too_long(path.to_parent());
    or_too_long(path.push(b"/../lib"));
    let found = system::is_readable(beside(&path, PROGRAM).with_nul());
    match found {
        Ok(()) => Some(path),
        Err(Errno(ENOENT)) => None,
        Err(error) => unusable(&beside(&path, PROGRAM), error, Found::ByName),
    }
}

fn beside(lib: &PathBuffer, name: &[u8]) -> PathBuffer {
    let mut path = lib.clone();
    or_too_long(path.push(b"/"));
    or_too_long(path.push(name));
    path
}

fn read_link(path: &[u8], into: &mut PathBuffer) -> bool {
    match system::read_link(path, into.space()) {
        Ok(len) => or_too_long(into.filled(len).map(|()| true)),
        Err(_) => false,
    }
}

fn read_link_at(path: &PathBuffer, into: &mut PathBuffer) -> bool {
    read_link(path.with_nul(), into)
}

/// A file of the tree, and what its head says: it is one, for this kind of processor, and not cut off.
fn image_of(path: &PathBuffer, found: Found) -> (File, Image) {
    let file = system::open(path.with_nul()).unwrap_or_else(|error| unusable(path, error, found));
    let status = system::status_of(&file).unwrap_or_else(|error| unusable(path, error, found));
    if !status.is_file() {
        give_up(&[path.as_bytes(), b" is no file; install the package anew"]);
    }
    let mut head = [0; HEAD_BYTES];
    let len = system::read_at(&file, &mut head, 0).unwrap_or_else(|error| unusable(path, error, found));
    match Image::parse(head.get(..len).unwrap_or_default()) {
        Ok(image) if image.file_len <= status.len => (file, image),
        Err(Fault::OtherMachine(_)) => give_up(&[
            path.as_bytes(),
            b" is made for another kind of processor than this program; install the package anew, on this machine",
        ]),
        Ok(_) | Err(Fault::NotElf | Fault::Malformed) => damaged(path),
    }
}

fn map(path: &PathBuffer, found: Found) -> (Image, Space) {
    let (file, image) = image_of(path, found);
    let space = system::reserve(image.span).unwrap_or_else(|error| unusable(path, error, found));
    for segment in image.segments() {
        if let Err(error) = space.map(&file, segment, PAGE) {
            unusable(path, error, found);
        }
    }
    system::close(file);
    (image, space)
}

/// Without the kernel's name the loader does not find the libraries beside the program, so it is given their path: as the value
/// of the program's own search path, which is counted from its table of strings on.
fn name_libraries(program: &Image, at: &Space, tree: &Tree) {
    let lib = tree.lib.as_bytes();
    if means_something_in_a_list(lib) {
        let what: &[u8] = match tree.found {
            Found::Unpacked => b" has a colon or a dollar sign, which the loader reads as something else",
            _ => b" has a colon or a dollar sign, which works only where /proc is mounted",
        };
        give_up(&[b"the path ", lib, what, advice(tree.found)]);
    }
    let Ok(path) = system::keep(tree.lib.with_nul()) else { give_up(&[b"there is no memory"]) };
    let (address, len) = program.dynamic;
    let mut strings = 0;
    at.change(address, len, |tag, value| {
        if tag == DT_STRTAB {
            strings = at.start + value;
        }
        None
    });
    at.change(address, len, |tag, _| (tag == DT_RPATH).then(|| path.wrapping_sub(strings)));
}

fn or_too_long<T>(result: Result<T, TooLong>) -> T {
    result.unwrap_or_else(|TooLong| give_up(&[b"the path of this program is too long"]))
}

fn damaged(path: &PathBuffer) -> ! {
    give_up(&[path.as_bytes(), b" is damaged; install the package anew"])
}

fn advice(found: Found) -> &'static [u8] {
    if found == Found::Unpacked { unpack::ADVICE } else { b"" }
}

fn unusable(path: &PathBuffer, error: Errno, found: Found) -> ! {
    let why: &[u8] = match error {
        Errno(ENOENT) => b" is missing; install the package anew",
        Errno(EACCES) => b" may not be read by this user",
        Errno(EPERM) => b" may not be executed: its file system is mounted noexec",
        Errno(EMFILE | ENFILE) => b" cannot be opened: no more files may be open (RLIMIT_NOFILE)",
        Errno(ENOMEM) => {
            b" cannot be mapped: there is no room for it; lift the limit of address space (ulimit -v, LimitAS=)"
        }
        Errno(ELOOP) => b" is a link that leads to itself; install the package anew",
        Errno(ENOTDIR) => b" cannot be opened: something on the way to it is no folder",
        Errno(ENAMETOOLONG) => b" cannot be opened: a name on the way to it is too long",
        Errno(EIO) => b" cannot be read: its disk fails",
        Errno(number) => give_up_by_number(path, number),
    };
    // Another folder helps against nothing else.
    let advice = if error == Errno(EPERM) { advice(found) } else { b"" };
    give_up(&[path.as_bytes(), why, advice])
}

/// What has no words of its own.
fn give_up_by_number(path: &PathBuffer, number: i32) -> ! {
    let mut digits = PathBuffer::new();
    or_too_long(digits.push_number(number as usize));
    give_up(&[path.as_bytes(), b" cannot be used: error ", digits.as_bytes(), b" of the kernel"])
}

fn give_up(text: &[&[u8]]) -> ! {
    system::say(b"nexus-sidecar: ");
    for part in text {
        system::say(part);
    }
    system::say(b"\n");
    system::exit(EXIT_CODE)
}
