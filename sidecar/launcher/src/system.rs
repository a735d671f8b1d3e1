//! The kernel, without a libc: the few calls that the launcher makes, what the compiler takes for granted, and the vector that the
//! kernel leaves on the stack. All of the launcher's unsafe code is here.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;
use core::slice;

use nexus_launcher::image::Segment;
use nexus_launcher::parcel::{LABEL_BYTES, MARK};

const READ_ONLY_CLOSE_ON_EXEC: usize = 0o2_000_000;
/// Opening waits for nobody, should there be a pipe in the place of a file.
const AT_ONCE: usize = 0o4_000;
const NEW_TO_BE_WRITTEN: usize = 0o301;
const AT_CURRENT_FOLDER: usize = -100_isize as usize;

/// So much of a folder is listed at once.
const LISTED_BYTES: usize = 2048;

const LOCK_EX: usize = 2;
const LOCK_NB: usize = 4;

const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const AT_REMOVEDIR: usize = 0x200;
const RENAME_EXCHANGE: usize = 2;

const PROT_READ: usize = 1;
const PROT_WRITE: usize = 2;
const PROT_EXEC: usize = 4;
const MAP_PRIVATE: usize = 2;
const MAP_FIXED: usize = 16;
const MAP_ANONYMOUS: usize = 32;
const MAP_POPULATE: usize = 0x8000;

const DT_RELA: usize = 7;
const DT_RELASZ: usize = 8;

const AT_PHDR: usize = 3;
const AT_PHENT: usize = 4;
const AT_PHNUM: usize = 5;
const AT_BASE: usize = 7;
const AT_ENTRY: usize = 9;
const AT_SECURE: usize = 23;
const AT_EXECFN: usize = 31;

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const EIO: i32 = 5;
pub const ENOMEM: i32 = 12;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const ENOTDIR: i32 = 20;
pub const ENFILE: i32 = 23;
pub const EMFILE: i32 = 24;
pub const EFBIG: i32 = 27;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;
pub const ENAMETOOLONG: i32 = 36;
pub const ENOTEMPTY: i32 = 39;
pub const ELOOP: i32 = 40;
pub const EDQUOT: i32 = 122;

/// What follows this launcher in its file: nothing, as long as nobody has written into this.
#[used]
static LABEL: [u8; LABEL_BYTES] = {
    let mut label = [0; LABEL_BYTES];
    let mut at = 0;
    while at < MARK.len() {
        label[at] = MARK[at];
        at += 1;
    }
    label
};

/// As it stands in the file.
pub fn label() -> [u8; LABEL_BYTES] {
    // SAFETY: a static of ours; volatile, since what the compiler knows of it is no longer true in a single file.
    unsafe { (&raw const LABEL).read_volatile() }
}

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

// The kernel enters with the argument count on top of the stack and expects no return. Afterwards the loader is entered with the very
// stack that the kernel made, as if the kernel had entered it, and with no function to call at exit (rdx).
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rbx, rsp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "mov rsp, rbx",
    "xor edx, edx",
    "jmp rax",
    main = sym enter,
);

/// SAFETY: called by `_start` alone, once, with what the kernel left.
unsafe extern "C" fn enter(stack: *mut usize) -> usize {
    // SAFETY: nothing has been done yet, and nothing that needs it.
    unsafe { relocate() };
    // SAFETY: the caller's promise.
    let mut start = unsafe { Start::new(stack) };
    crate::launch(&mut start)
}

/// Puts in the addresses that depend on where the launcher lies: the kernel has chosen that, and there is no loader to do it.
///
/// SAFETY: called first, once.
unsafe fn relocate() {
    let base: usize;
    let mut dynamic: *const [usize; 2];
    // SAFETY: takes addresses of what the linker has laid down.
    unsafe {
        asm!(".hidden __ehdr_start", ".hidden _DYNAMIC", "lea {}, [rip + __ehdr_start]", "lea {}, [rip + _DYNAMIC]",
            out(reg) base, out(reg) dynamic, options(nomem, nostack));
    }
    let (mut table, mut bytes) = (0, 0);
    loop {
        // SAFETY: the section goes on until its entry of kind 0.
        match unsafe { *dynamic } {
            [0, _] => break,
            [DT_RELA, value] => table = base + value,
            [DT_RELASZ, value] => bytes = value,
            _ => {}
        }
        // SAFETY: the last entry is still to come.
        dynamic = unsafe { dynamic.add(1) };
    }
    for at in (table..table + bytes).step_by(size_of::<[usize; 3]>()) {
        // SAFETY: the linker's table: where, what kind (all are relative to the base), and what to add to it.
        let [offset, _, addend] = unsafe { *(at as *const [usize; 3]) };
        // SAFETY: a place that the linker wants to be filled in, in memory that can be written.
        unsafe { *((base + offset) as *mut usize) = base + addend };
    }
}

/// What the kernel left for the program: arguments, environment, and a vector of facts.
pub struct Start {
    environment: *mut *const u8,
    vector: *mut [usize; 2],
}

impl Start {
    /// SAFETY: `stack` is the stack as the kernel left it, and nobody else looks at it.
    unsafe fn new(stack: *mut usize) -> Self {
        // SAFETY: the count of arguments stands first.
        let count = unsafe { *stack };
        // SAFETY: after it the arguments and a null.
        let environment = unsafe { stack.add(count + 2) };
        let mut end = environment;
        // SAFETY: then the environment up to a null.
        while unsafe { *end } != 0 {
            // SAFETY: the null is still to come.
            end = unsafe { end.add(1) };
        }
        // SAFETY: behind it the vector.
        let vector = unsafe { end.add(1) };
        Self { environment: environment.cast(), vector: vector.cast() }
    }

    /// The value of a variable of the environment.
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        let mut at = self.environment;
        loop {
            // SAFETY: the environment goes on until its null.
            let entry = unsafe { *at };
            if entry.is_null() {
                return None;
            }
            // SAFETY: each entry is a string with an end, which lives as long as the process.
            let entry = unsafe { string(entry) };
            if let Some(value) = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
                return Some(value);
            }
            // SAFETY: the null is still to come.
            at = unsafe { at.add(1) };
        }
    }

    /// Takes what begins with the first of these away, for whoever reads the environment after this; what the kernel tells others of
    /// it stays. Tells whether any of that began with one of the second, and said something.
    pub fn take_from_environment(&mut self, (away, told): (&[u8], [&[u8]; 2])) -> bool {
        let (mut at, mut tells) = (self.environment, false);
        loop {
            // SAFETY: the environment goes on until its null.
            let entry = unsafe { *at };
            if entry.is_null() {
                return tells;
            }
            // SAFETY: each entry is a string with an end, which lives as long as the process.
            let text = unsafe { string(entry) };
            if text.starts_with(away) {
                tells |= told.iter().any(|name| text.strip_prefix(*name).is_some_and(|value| !value.is_empty()));
                // An entry that says nothing stays, since the loader finds the vector behind the last: the end of that string.
                // SAFETY: the end of the string is a string.
                let end = unsafe { entry.add(text.len()) };
                // SAFETY: the kernel's list is ours to change.
                unsafe { *at = end };
            }
            // SAFETY: the null is still to come.
            at = unsafe { at.add(1) };
        }
    }

    /// As what the launcher was started.
    pub fn started_as(&self) -> Option<&[u8]> {
        let name = self.fact(AT_EXECFN)?;
        // SAFETY: the kernel put a string with an end there, which lives as long as the process.
        (name != 0).then(|| unsafe { string(name as *const u8) })
    }

    /// Whether it runs with rights that whoever started it does not have.
    pub fn has_foreign_rights(&self) -> bool {
        self.fact(AT_SECURE).is_some_and(|value| value != 0)
    }

    /// Tells the loader what program there is, as the kernel would have.
    pub fn describe(&mut self, loader: usize, entry: usize, table: usize, entry_len: usize, entries: usize) {
        for (kind, value) in
            [(AT_BASE, loader), (AT_ENTRY, entry), (AT_PHDR, table), (AT_PHENT, entry_len), (AT_PHNUM, entries)]
        {
            if let Some(place) = self.place(kind) {
                // SAFETY: the entry lies on the stack, which can be written, and is ours.
                unsafe { (*place)[1] = value };
            }
        }
    }

    fn fact(&self, kind: usize) -> Option<usize> {
        // SAFETY: the place is an entry of the vector.
        self.place(kind).map(|place| unsafe { (*place)[1] })
    }

    fn place(&self, kind: usize) -> Option<*mut [usize; 2]> {
        let mut at = self.vector;
        loop {
            // SAFETY: the vector goes on until an entry of kind 0.
            match unsafe { (*at)[0] } {
                0 => return None,
                found if found == kind => return Some(at),
                // SAFETY: the last entry is still to come.
                _ => at = unsafe { at.add(1) },
            }
        }
    }
}

/// SAFETY: a string with an end is there, for as long as the process lives.
unsafe fn string<'a>(start: *const u8) -> &'a [u8] {
    // SAFETY: the caller's promise.
    let len = unsafe { strlen(start) };
    // SAFETY: so many bytes are there.
    unsafe { slice::from_raw_parts(start, len) }
}

/// An open file; closed by [`close`].
pub struct File(usize);

/// `path` ends with a NUL, here and below.
pub fn open(path: &[u8]) -> Result<File, Errno> {
    let path = path.as_ptr() as usize;
    // SAFETY: the kernel reads the string, which has an end, and makes a descriptor.
    unsafe { call(257, [AT_CURRENT_FOLDER, path, READ_ONLY_CLOSE_ON_EXEC | AT_ONCE, 0, 0, 0]) }.map(File)
}

/// A new file for this user alone, to be written.
pub fn create(path: &[u8]) -> Result<File, Errno> {
    let flags = READ_ONLY_CLOSE_ON_EXEC | NEW_TO_BE_WRITTEN;
    // SAFETY: the kernel reads the string, which has an end, and makes a descriptor.
    unsafe { call(257, [AT_CURRENT_FOLDER, path.as_ptr() as usize, flags, 0o400, 0, 0]) }.map(File)
}

/// A new folder for this user alone.
pub fn make_folder(path: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the string, which has an end.
    unsafe { call(258, [AT_CURRENT_FOLDER, path.as_ptr() as usize, 0o700, 0, 0, 0]) }.map(|_| ())
}

pub fn write_all(file: &File, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads the slice.
        match unsafe { call(1, [file.0, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno(EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has a write that a limit of the size of files forbids fail, rather than end the process by a signal.
pub fn let_writes_fail() {
    const SIGXFSZ: usize = 25;
    const IGNORED: usize = 1;
    // What to do, flags, and two that are not looked at.
    let action = [IGNORED, 0, 0, 0];
    // SAFETY: the kernel reads the four words; nothing of ours is to be called.
    let _ = unsafe { call(13, [SIGXFSZ, action.as_ptr() as usize, 0, 8, 0, 0]) };
}

/// Holds a file or folder against others who do the same, until it is closed or the process ends. With `wait`
/// as soon as nobody else does, and else not at all if somebody does.
pub fn hold(file: &File, wait: bool) -> Result<(), Errno> {
    let how = if wait { LOCK_EX } else { LOCK_EX | LOCK_NB };
    loop {
        // SAFETY: changes nothing in memory.
        match unsafe { call(73, [file.0, how, 0, 0, 0, 0]) } {
            Err(Errno(EINTR)) => {}
            other => return other.map(|_| ()),
        }
    }
}

/// Hands the name of each entry of an open folder to `each`.
pub fn list(folder: &File, mut each: impl FnMut(&[u8])) {
    // As the kernel lays them out: two words, a length, a kind and a name with an end.
    const NAME_AT: usize = 19;
    let mut bytes = [0; LISTED_BYTES];
    loop {
        // SAFETY: the kernel writes no more than the buffer has.
        let listed = unsafe { call(217, [folder.0, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0]) };
        let mut rest = match listed {
            Ok(len) if len > 0 => bytes.get(..len).unwrap_or_default(),
            _ => return,
        };
        while let Some(&[low, high]) = rest.get(16..18) {
            let len = usize::from(u16::from_le_bytes([low, high])).max(NAME_AT);
            let name = rest.get(NAME_AT..len).unwrap_or_default();
            each(name.split(|byte| *byte == 0).next().unwrap_or_default());
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

/// Waits until the file's bytes would survive a loss of power.
pub fn settle(file: &File) -> Result<(), Errno> {
    // SAFETY: changes nothing.
    unsafe { call(75, [file.0, 0, 0, 0, 0, 0]) }.map(|_| ())
}

/// What is known of a path.
pub struct Status {
    /// Which it is of its file system.
    pub number: u64,
    pub mode: u32,
    pub owner: u32,
    pub len: u64,
    /// Its file system.
    pub device: u64,
}

impl Status {
    pub fn is_folder(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    pub fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }

    pub fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// `follow`: if it is a link, of what that leads to.
pub fn status(path: &[u8], follow: bool) -> Result<Status, Errno> {
    let mut words = [0; STATUS_WORDS];
    let flags = if follow { 0 } else { AT_SYMLINK_NOFOLLOW };
    let to = words.as_mut_ptr() as usize;
    // SAFETY: the kernel reads the string, which has an end, and writes 144 bytes.
    unsafe { call(262, [AT_CURRENT_FOLDER, path.as_ptr() as usize, to, flags, 0, 0]) }?;
    Ok(told(&words))
}

pub fn status_of(file: &File) -> Result<Status, Errno> {
    let mut words = [0; STATUS_WORDS];
    // SAFETY: the kernel writes 144 bytes.
    unsafe { call(5, [file.0, words.as_mut_ptr() as usize, 0, 0, 0, 0]) }?;
    Ok(told(&words))
}

const STATUS_WORDS: usize = 18;

/// As the kernel lays it out.
fn told(words: &[u64; STATUS_WORDS]) -> Status {
    let [device, number, _, mode_and_owner, _, _, len, ..] = *words;
    let (mode, owner) = (mode_and_owner as u32, (mode_and_owner >> 32) as u32);
    Status { number, mode, owner, len, device }
}

/// Whatever was at `to` is gone afterwards, if the kernel lets it; with `exchange` it is at `from`.
pub fn rename(from: &[u8], to: &[u8], exchange: bool) -> Result<(), Errno> {
    let (from, to) = (from.as_ptr() as usize, to.as_ptr() as usize);
    let flags = if exchange { RENAME_EXCHANGE } else { 0 };
    // SAFETY: the kernel reads the strings, which have ends.
    unsafe { call(316, [AT_CURRENT_FOLDER, from, AT_CURRENT_FOLDER, to, flags, 0]) }.map(|_| ())
}

/// A file or link; or a folder, which has to be empty. Whether it was there does not matter.
pub fn remove(path: &[u8], folder: bool) {
    let flags = if folder { AT_REMOVEDIR } else { 0 };
    // SAFETY: the kernel reads the string, which has an end.
    let _ = unsafe { call(263, [AT_CURRENT_FOLDER, path.as_ptr() as usize, flags, 0, 0, 0]) };
}

/// As whom this process acts.
pub fn user() -> u32 {
    // SAFETY: changes nothing.
    unsafe { call(107, [0; 6]) }.unwrap_or(usize::MAX) as u32
}

pub fn process() -> usize {
    // SAFETY: changes nothing.
    unsafe { call(39, [0; 6]) }.unwrap_or(0)
}

pub fn is_readable(path: &[u8]) -> Result<(), Errno> {
    // SAFETY: the kernel reads the string, which has an end.
    unsafe { call(269, [AT_CURRENT_FOLDER, path.as_ptr() as usize, 4, 0, 0, 0]) }.map(|_| ())
}

pub fn read_link(path: &[u8], into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads the string, which has an end, and writes no more than the slice has.
    unsafe { call(267, [AT_CURRENT_FOLDER, path.as_ptr() as usize, into.as_mut_ptr() as usize, into.len(), 0, 0]) }
}

/// From there on, as much as one call gives.
pub fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<usize, Errno> {
    // SAFETY: the kernel writes no more than the slice has.
    unsafe { call(17, [file.0, into.as_mut_ptr() as usize, into.len(), at as usize, 0, 0]) }
}

/// Hands all bytes of a file, which has so many, to `look`: in place, which is half the work of reading them. Whoever cuts the file
/// meanwhile ends this by a signal, as with every file of machine code.
pub fn show(file: &File, len: usize, look: impl FnOnce(&[u8])) -> Result<(), Errno> {
    if len > 0 {
        // SAFETY: new memory at a place of the kernel's choice harms nothing.
        let start = unsafe { call(9, [0, len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file.0, 0]) }?;
        // SAFETY: the kernel has put so many bytes there, and nobody changes or unmaps them before the next line.
        look(unsafe { slice::from_raw_parts(start as *const u8, len) });
        // SAFETY: it was made above, and nobody looks at it any more.
        unsafe { call(11, [start, len, 0, 0, 0, 0]) }?;
    }
    Ok(())
}

pub fn close(file: File) {
    // SAFETY: the descriptor is nobody else's.
    let _ = unsafe { call(3, [file.0, 0, 0, 0, 0, 0]) };
}

/// Address space for an image, aligned to pages; nothing is in it yet.
pub fn reserve(len: usize) -> Result<Space, Errno> {
    // SAFETY: new memory at a place of the kernel's choice harms nothing.
    unsafe { call(9, [0, len, 0, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0]) }.map(|start| Space { start, len })
}

/// Whether so much more could be mapped.
pub fn has_room(len: usize) -> Result<(), Errno> {
    let Space { start, len } = reserve(len)?;
    // SAFETY: it was made in the line before, and nothing is in it.
    unsafe { call(11, [start, len, 0, 0, 0, 0]) }.map(|_| ())
}

/// A copy that stays for as long as the process lives. Tells where it is.
pub fn keep(bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: new memory at a place of the kernel's choice harms nothing.
    let place =
        unsafe { call(9, [0, bytes.len(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0]) }?;
    // SAFETY: the memory is new, and as long as what comes into it.
    unsafe { memcpy(place as *mut u8, bytes.as_ptr(), bytes.len()) };
    Ok(place)
}

/// Memory that is reserved for one image.
pub struct Space {
    pub start: usize,
    len: usize,
}

impl Space {
    /// Puts a segment of a file in its place, and zeros behind it.
    pub fn map(&self, file: &File, segment: &Segment, page: usize) -> Result<(), Errno> {
        let within = segment.address & (page - 1);
        let start = self.start + segment.address - within;
        let end = self.start + segment.address + segment.memory_len;
        if segment.address + segment.memory_len > self.len {
            return Err(Errno(EPERM));
        }
        let protection = if segment.read { PROT_READ } else { 0 }
            | if segment.write { PROT_WRITE } else { 0 }
            | if segment.execute { PROT_EXEC } else { 0 };
        let flags = MAP_PRIVATE | MAP_FIXED;
        if segment.file_len > 0 {
            let len = within + segment.file_len;
            // SAFETY: the pages are in the space that is reserved for this.
            unsafe { call(9, [start, len, protection, flags, file.0, segment.offset - within]) }?;
        }
        let filled = self.start + segment.address + segment.file_len;
        let rest = if segment.file_len > 0 { (filled + page - 1) & !(page - 1) } else { start };
        if segment.memory_len > segment.file_len && segment.write {
            let zeros = if segment.file_len > 0 { rest.min(end) - filled } else { 0 };
            // SAFETY: the rest of the last page of the file, which is mapped and can be written.
            unsafe { zero(filled as *mut u8, zeros) };
        }
        if end > rest {
            // SAFETY: the pages are in the space that is reserved for this.
            unsafe { call(9, [rest, end - rest, protection, flags | MAP_ANONYMOUS, usize::MAX, 0]) }?;
        }
        Ok(())
    }

    /// Hands each entry of a dynamic section to `change`, up to its end, and puts what that returns in the place of its value.
    pub fn change(&self, address: usize, len: usize, mut change: impl FnMut(usize, usize) -> Option<usize>) {
        if address.checked_add(len).is_none_or(|end| end > self.len) || !address.is_multiple_of(8) {
            return;
        }
        for at in (address..address + len - len % 16).step_by(16) {
            let pair = (self.start + at) as *mut [usize; 2];
            // SAFETY: it lies in a segment that is mapped, and is aligned.
            let [tag, value] = unsafe { *pair };
            if tag == 0 {
                return;
            }
            if let Some(changed) = change(tag, value) {
                // SAFETY: the dynamic section is in memory that can be written until the loader has done with it.
                unsafe { (*pair)[1] = changed };
            }
        }
    }
}

/// All of these bytes to standard error, as far as it goes.
pub fn say(text: &[u8]) {
    // SAFETY: the kernel reads the slice.
    let _ = unsafe { call(1, [2, text.as_ptr() as usize, text.len(), 0, 0, 0]) };
}

pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: ends the process.
        let _ = unsafe { call(231, [usize::from(code), 0, 0, 0, 0, 0]) };
    }
}

/// SAFETY: that the call with these arguments harms nothing is the caller's to know.
unsafe fn call(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel changes what is named here and, in memory, what the caller answers for.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}

/// SAFETY: so many bytes can be written there.
unsafe fn zero(start: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { asm!("rep stosb", inout("rcx") len => _, inout("rdi") start => _, in("al") 0_u8, options(nostack)) };
}

// The compiler calls these for what it cannot do in a few instructions.

/// SAFETY: as C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack)) };
    to
}

/// SAFETY: as C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8, options(nostack)) };
    to
}

/// SAFETY: as C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the end is still to come. Volatile, lest the compiler makes a call of this of it.
    while unsafe { text.wrapping_add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// SAFETY: as C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    for at in 0..len {
        // SAFETY: the caller's promise.
        let one = unsafe { one.wrapping_add(at).read_volatile() };
        // SAFETY: the caller's promise.
        let other = unsafe { other.wrapping_add(at).read_volatile() };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

/// SAFETY: as C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(one, other, len) }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    say(b"nexus-sidecar: the launcher has failed\n");
    exit(70)
}
