//! The few system calls that `std` and `nix` do not offer, or not in the shape that is needed. All unsafe code outside of the
//! engine's `ffi.rs` is here and in the parts below.

mod along;
pub mod limits;
mod threads;

use std::cell::OnceCell;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexus_protocol::limits::{SEAL_PATIENCE_MS, SIGNAL_STACK_BYTES};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

pub use along::{descriptors_come, expect_descriptors, let_go_of_rest, read_from_peer, refuse_descriptors};
#[cfg(test)]
pub use threads::is_behind;
pub use threads::{Thread, give_way_when_told, step_back, step_forward, thread_cpu_time};

use crate::faults::{self, Point};

/// A file that exists in memory only and cannot be changed any more.
pub struct SealedFile {
    fd: OwnedFd,
    /// Of this process.
    number: u64,
}

impl SealedFile {
    /// By which the calling thread can open it, while `self` lives. No two files of a process have the same path:
    /// to the dynamic linker, a library that is still loaded is what the next one of its name is, and the numbers of
    /// descriptors come again. So the number of the file is in the path, in binary, as `/` and `/.`, which mean nothing.
    pub fn path(&self) -> PathBuf {
        let bits = (0..u64::BITS - self.number.leading_zeros()).map(|bit| self.number >> bit & 1);
        let number: String = bits.map(|bit| if bit == 0 { "/" } else { "/." }).collect();
        PathBuf::from(format!("/proc/thread-self/fd{number}/{}", self.fd.as_raw_fd()))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A file in memory that is to be filled once. Making it and filling it are two steps, since a process that may make no more
/// files can still fill one.
pub struct BlankFile(File);

impl BlankFile {
    /// One of this length, all holes.
    pub fn new(name: &str, len: usize) -> io::Result<Self> {
        faults::io(Point::MemoryFile)?;
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(fd);
        file.set_len(len as u64)?;
        Ok(Self(file))
    }

    /// Puts these bytes at its start, after which nobody can change it any more.
    pub fn seal(self, bytes: &[u8]) -> io::Result<SealedFile> {
        let Self(file) = self;
        // zeros stay holes: the image of the guest in stack style has 16 MB of them
        const BLOCK: usize = 64 << 10;
        for (index, block) in bytes.chunks(BLOCK).enumerate().filter(|(_, block)| block.iter().any(|b| *b != 0)) {
            file.write_all_at(block, (index * BLOCK) as u64)?;
        }
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        seal_when_at_rest(&file, seals)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(SealedFile { fd: file.into(), number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }
}

/// Seals a file that nobody writes to. The kernel refuses with EBUSY after 150 ms in which it has found pages of the file in
/// use, and the kernel itself may be who uses them, as when it moves pages to other places of memory. So a refusal is no answer
/// until it has been given for [`SEAL_PATIENCE_MS`].
/// Source: `memfd_wait_for_pins` in mm/memfd.c of the kernel.
fn seal_when_at_rest(file: &File, seals: SealFlag) -> nix::Result<()> {
    let begun = Instant::now();
    loop {
        match fcntl(file, FcntlArg::F_ADD_SEALS(seals)) {
            Err(Errno::EBUSY) if begun.elapsed() < Duration::from_millis(SEAL_PATIENCE_MS) => {
                thread::sleep(Duration::from_millis(1));
            }
            sealed => return sealed.map(drop),
        }
    }
}

/// A file in memory of zeros that keeps its length.
pub fn fixed_memory_file(name: &str, len: u64) -> io::Result<File> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let file = File::from(fd);
    file.set_len(len)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}

/// Words of a file in memory, from that place on, as everybody sees them who has it. They stay mapped for as long as the process lives.
pub fn shared_words(file: BorrowedFd<'_>, at: u64, count: usize) -> io::Result<&'static [AtomicU64]> {
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
    // SAFETY: a new mapping at an address of the kernel's choice, which replaces nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), count * 8, access, libc::MAP_SHARED, fd, at as libc::off_t) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: whole pages of that length, which are never unmapped; the words are atomic, whoever else writes them.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), count) })
}

/// A file in memory with these bytes, which nobody can change any more.
pub fn sealed_memory_file(name: &str, bytes: &[u8]) -> io::Result<SealedFile> {
    BlankFile::new(name, bytes.len())?.seal(bytes)
}

/// How many processors this process may use: as the start has found it, since finding it opens files.
pub fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// The page map of this process, opened once: there may be no descriptor left when it is needed.
pub fn page_map() -> io::Result<&'static File> {
    static PAGE_MAP: OnceLock<File> = OnceLock::new();
    if let Some(file) = PAGE_MAP.get() {
        return Ok(file);
    }
    faults::io(Point::PageMap)?;
    let file = File::open("/proc/self/pagemap")?;
    Ok(PAGE_MAP.get_or_init(|| file))
}

/// Whether an error means that the system cannot do something, and not that it lacks something at the moment.
pub fn is_for_good(error: &io::Error) -> bool {
    let lacking = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::EINTR, libc::EBUSY, libc::EIO];
    !error.raw_os_error().is_some_and(|number| lacking.contains(&number))
}

/// For each page of this process from `address` on whether the kernel holds something for it (in memory or swapped out).
/// Source: Documentation/admin-guide/mm/pagemap.rst of the kernel, bits 63 and 62.
pub fn pages_in_use(address: usize, len: usize) -> io::Result<Vec<bool>> {
    const PAGE: usize = 4096;
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    let mut entries = vec![0; len / PAGE * 8];
    page_map()?.read_exact_at(&mut entries, (address / PAGE * 8) as u64)?;
    let words = entries.chunks_exact(8).map(|e| u64::from_ne_bytes(e.try_into().unwrap_or_default()));
    Ok(words.map(|e| e & PRESENT_OR_SWAPPED != 0).collect())
}

/// Numbers of the pages from `address` on that this process has bytes of its own for: in memory or swapped out, and neither
/// the kernel's page of zeros nor a page of a file. Costs 20 us for 256 MiB of which little is used, where the kernel has
/// PAGEMAP_SCAN (6.7); reading the whole page map takes ten times that.
pub fn pages_with_content(address: usize, len: usize) -> io::Result<Vec<usize>> {
    faults::io(Point::Pages)?;
    match scan_pages(address, len) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
            let in_use = pages_in_use(address, len)?;
            Ok(in_use.iter().enumerate().filter(|(_, used)| **used).map(|(index, _)| index).collect())
        }
        scanned => scanned,
    }
}

/// Source of the layout: include/uapi/linux/fs.h of the kernel.
#[repr(C)]
#[derive(Default)]
struct PageScan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// Asks which pages of its own memory a process has: an ioctl of its page map.
pub const PAGEMAP_SCAN: u32 = 0xc060_6610;

fn scan_pages(address: usize, len: usize) -> io::Result<Vec<usize>> {
    let mut pages = Vec::new();
    for_each_own_page(address, len, |page| pages.push(page))?;
    Ok(pages)
}

/// Calls the function with the number of each page from `address` on that this process has bytes of its own for, in their order.
/// Allocates nothing. Fails where the kernel has no PAGEMAP_SCAN, and may have found some by then.
pub fn for_each_own_page(address: usize, len: usize, mut found: impl FnMut(usize)) -> io::Result<()> {
    const PAGE: usize = 4096;
    const FILE: u64 = 1 << 2;
    const PRESENT: u64 = 1 << 3;
    const SWAPPED: u64 = 1 << 4;
    const ZERO: u64 = 1 << 5;
    let pagemap = page_map()?;
    let end = (address + len) as u64;
    let mut regions = [PageRegion::default(); 128];
    let mut start = address as u64;
    while start < end {
        let mut scan = PageScan {
            size: size_of::<PageScan>() as u64,
            start,
            end,
            regions: regions.as_mut_ptr() as u64,
            regions_len: regions.len() as u64,
            category_inverted: FILE | ZERO,
            category_mask: FILE | ZERO,
            category_anyof_mask: PRESENT | SWAPPED,
            return_mask: FILE,
            ..PageScan::default()
        };
        // SAFETY: the argument is laid out as the kernel expects it, and `regions` is live and as long as it says.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), libc::Ioctl::from(PAGEMAP_SCAN), &raw mut scan) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for region in regions.iter().take(count) {
            (((region.start as usize - address) / PAGE)..((region.end as usize - address) / PAGE)).for_each(&mut found);
        }
        if scan.walk_end <= start {
            return Err(io::Error::other("the scan of the page map does not get on"));
        }
        start = scan.walk_end;
    }
    Ok(())
}

/// Fills `out` from the kernel's random number generator.
pub fn fill_random(out: &mut [u8]) -> io::Result<()> {
    faults::io(Point::Random)?;
    let mut filled = 0;
    while filled < out.len() {
        let rest = &mut out[filled..];
        // SAFETY: the pointer and length are those of a live mutable slice.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Blocks from this size on are the system's again as soon as they are freed, and no thread's part of the heap keeps more than
/// this at its end. Left to itself, the allocator takes both up to 64 MiB after the first large block, for each thread, and
/// what lies there [`trim_heap`] does not reach.
const HEAP_KEEPS_BYTES: i32 = 8 << 20;

/// Bounds what the allocator keeps of memory that was freed. For the whole process, before it has other threads.
pub fn bound_heap() {
    #[cfg(target_env = "gnu")]
    for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: has no precondition; the allocator takes its own locks.
        unsafe {
            libc::mallopt(parameter, HEAP_KEEPS_BYTES);
        }
    }
}

/// How many parts the heap has at the most, which the allocator else finds out from files, each time that a thread begins.
pub fn bound_parts_of_heap(parts: usize) {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no precondition; the allocator takes its own locks.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, i32::try_from(parts).unwrap_or(i32::MAX));
    }
}

/// Gives memory back to the system that the allocator has free, wherever it lies but at the end of a thread's part.
pub fn trim_heap() {
    // SAFETY: has no precondition; the allocator takes its own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the threads that this one makes from now on, and itself, yield to everybody else.
pub fn yield_to_others(nice: i32) {
    // SAFETY: a call on numbers. It fails only where the kernel knows no such priority, and then nothing changes.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Ends the process at once: no destructor, no exit handler, no other thread is waited for.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: has no precondition and does not return.
    unsafe { libc::_exit(code.into()) }
}

/// The path that the kernel was given to execute this program, as it was given; relative ones were meant from the folder that
/// the process began in.
pub fn started_as() -> Option<PathBuf> {
    // SAFETY: has no precondition.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return None;
    }
    // SAFETY: what the kernel put there is a string with an end, on the first thread's stack for as long as the process lives.
    let name = unsafe { CStr::from_ptr(name) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Whether so many more descriptors can be had at once, which takes and leaves none.
pub fn has_descriptors(n: usize) -> io::Result<()> {
    (0..n).map(|_| io::stderr().as_fd().try_clone_to_owned()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Takes over a connected stream socket that the parent left open under a number.
pub fn adopt_socket(fd: RawFd) -> io::Result<UnixStream> {
    // SAFETY: only borrowed to look at it; a number that is not open makes the calls below fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    check_is_unix_stream(borrowed)?;
    // SAFETY: the number is open (checked above), and the command line gives it to us alone.
    Ok(unsafe { UnixStream::from_raw_fd(fd) })
}

/// Takes over a listening stream socket that a service manager left open under a number.
pub fn adopt_listener(fd: RawFd) -> io::Result<UnixListener> {
    use nix::sys::socket::{getsockopt, sockopt};

    // SAFETY: only borrowed to look at it; a number that is not open makes the calls below fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    check_is_unix_stream(borrowed)?;
    if !getsockopt(&borrowed, sockopt::AcceptConn)? {
        return Err(io::Error::other("it does not listen (a socket unit needs Accept=no)"));
    }
    // SAFETY: the number is open (checked above), and the service manager gives it to us alone.
    Ok(unsafe { UnixListener::from_raw_fd(fd) })
}

fn check_is_unix_stream(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};

    if getsockopt(&fd, sockopt::SockType)? != SockType::Stream {
        return Err(io::Error::other("it is no stream socket"));
    }
    if getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family() != Some(AddressFamily::Unix) {
        return Err(io::Error::other("it is no Unix socket"));
    }
    Ok(())
}

/// One message of a socket that keeps messages apart, and the descriptor that came with it. Without room for that descriptor it
/// is lost, and an error says so.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!(RawFd);
    let mut pieces = [io::IoSliceMut::new(bytes)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let mut descriptor = None;
    for part in message.cmsgs().map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            for number in numbers {
                // SAFETY: the kernel has just made it for this message, and nobody else knows it.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptor))
}

/// A descriptor that whoever started this process has left open under a number, to be owned here alone.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed to look at it; a number that is not open makes the call below fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    // SAFETY: the number is open (checked above), and it was left there for the caller, who asks for it once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Any system call with any arguments: what a process does that is no longer to be trusted, for tests of what it comes to.
#[cfg(feature = "faults")]
pub fn any_call(number: libc::c_long, arguments: [i64; 6]) -> libc::c_long {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: none is promised. It is in no program that is shipped; its caller hands over addresses of memory that it has.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

/// A descriptor of a process, readable once that process has ended.
pub fn open_process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers, touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor but the standard streams and `keep`: what a parent leaked into us would otherwise stay open for
/// life. Only for the start of the process, before anything of its own is open.
pub fn close_inherited(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().chain([u32::MAX]) {
        if kept > first {
            // SAFETY: takes three numbers; nothing in this process owns one of these descriptors yet.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, first, kept.saturating_sub(1), 0) };
        }
        first = kept.saturating_add(1);
    }
}

/// Does this on a thread that has a table of descriptors of its own, with nothing in it but the standard streams. Whatever this
/// process has open, and whatever its other threads open meanwhile, there is room in that table. For code that does not survive
/// a refusal to open a file.
///
/// Signals to the process go to other threads: handlers write to descriptors, which are others here, or none.
pub fn with_own_descriptors<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let inner = || {
        let mut of_the_process = SigSet::all();
        OF_FAULTS.iter().for_each(|signal| of_the_process.remove(*signal));
        of_the_process.thread_block()?;
        // SAFETY: takes three numbers. The table of the other threads stays as it is; this thread, which has only just begun,
        // owns none of the descriptors that its copy loses.
        let ret = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
        if ret == 0 { Ok(work()) } else { Err(io::Error::last_os_error()) }
    };
    let thread = std::thread::Builder::new().name("loader".into());
    std::thread::scope(|scope| {
        let handle = thread.spawn_scoped(scope, inner)?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A value that any thread reads without a lock and that is replaced now and then. What was replaced stays in memory for
/// the rest of the process, so that readers may keep it.
#[derive(Debug)]
pub struct Replaceable<T: 'static>(AtomicPtr<T>);

impl<T: Send + Sync> Replaceable<T> {
    pub fn new(value: T) -> Self {
        Self(AtomicPtr::new(Box::leak(Box::new(value))))
    }

    pub fn get(&self) -> &'static T {
        // SAFETY: the pointer always comes from `Box::leak`, here and in `replace`, and is never freed or written to.
        unsafe { &*self.0.load(Ordering::Acquire) }
    }

    pub fn replace(&self, value: T) {
        self.0.store(Box::leak(Box::new(value)), Ordering::Release);
    }
}

/// Signals that a thread gets for what it does itself.
const OF_FAULTS: [Signal; 3] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE];

/// Has the handlers that are installed for faults run on the signal stacks of the threads that fault. Where none is installed,
/// nothing changes.
pub fn take_faults_on_signal_stacks() -> io::Result<()> {
    for signal in OF_FAULTS.map(|signal| signal as libc::c_int) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action it only fills in `action`, which lives.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: filled in by the call above; a plain structure of the C library of which all zeros is a value, too.
        let mut action = unsafe { action.assume_init() };
        if matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
            continue;
        }
        action.sa_flags |= libc::SA_ONSTACK;
        // SAFETY: the action is the one that is installed, a handler that its owner made for this signal; only the stack that
        // it runs on is another.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A stack for signal handlers, of the thread that made it, with a page below it that nothing may touch.
struct SignalStack {
    mapping: *mut libc::c_void,
}

impl SignalStack {
    const GUARD: usize = 4096;
    const LEN: usize = Self::GUARD + SIGNAL_STACK_BYTES;

    fn install() -> io::Result<Self> {
        faults::io(Point::Map)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping, wherever the kernel likes.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), Self::LEN, libc::PROT_NONE, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let this = Self { mapping };
        let bottom = mapping.wrapping_byte_add(Self::GUARD);
        // SAFETY: all but the first page of the mapping that was just made and that nobody else knows.
        if unsafe { libc::mprotect(bottom, SIGNAL_STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let stack = libc::stack_t { ss_sp: bottom, ss_flags: 0, ss_size: SIGNAL_STACK_BYTES };
        // SAFETY: the range is mapped, writable, and stays so until `drop` has taken it back from this thread.
        if unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(this)
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: this thread is about to end, and the stack is one that it does not run on; without any it gets signals where
        // it stands. The standard library has taken its own back by now.
        let _ = unsafe { libc::sigaltstack(&none, std::ptr::null_mut()) };
        // SAFETY: made by `install`, and no thread's signal stack any more.
        let _ = unsafe { libc::munmap(self.mapping, Self::LEN) };
    }
}

/// What a thread needs that runs guests.
struct GuestThread {
    _signal_stack: SignalStack,
    /// Lowest address of its stack.
    lowest: usize,
}

impl GuestThread {
    fn prepare() -> io::Result<Self> {
        let signal_stack = SignalStack::install()?;
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        // SAFETY: has no precondition.
        let this_thread = unsafe { libc::pthread_self() };
        // SAFETY: fills `attributes` in for the calling thread.
        let error = unsafe { libc::pthread_getattr_np(this_thread, attributes.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let (mut lowest, mut len) = (std::ptr::null_mut(), 0);
        // SAFETY: `attributes` was filled in above, the results are live.
        let error = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut lowest, &mut len) };
        // SAFETY: filled in above, not used afterwards.
        let _ = unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Self { _signal_stack: signal_stack, lowest: lowest.addr() })
    }
}

thread_local! {
    static GUEST_THREAD: OnceCell<GuestThread> = const { OnceCell::new() };
}

/// Gives the calling thread what it needs to run guests, once: a signal stack of its own that is large enough (the standard
/// library's is not), and knowledge of its bounds.
pub fn prepare_thread_for_guests() -> io::Result<()> {
    GUEST_THREAD.with(|thread| {
        if thread.get().is_none() {
            let _ = thread.set(GuestThread::prepare()?);
        }
        Ok(())
    })
}

/// Bytes of its stack that the calling thread has left, if it was prepared for guests. Any number for all others.
pub fn native_stack_left() -> usize {
    let here = 0_u8;
    let here = (&raw const here).addr();
    GUEST_THREAD.with(|thread| thread.get().map_or(usize::MAX, |thread| here.saturating_sub(thread.lowest)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::fcntl::{SpliceFFlags, splice};

    use super::*;

    #[test]
    fn a_thread_with_own_descriptors_gets_no_signals_but_its_own() {
        let blocked = with_own_descriptors(SigSet::thread_get_mask).unwrap().unwrap();
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
            assert_eq!(blocked.contains(signal), !OF_FAULTS.contains(&signal), "{signal}");
        }
    }

    #[test]
    fn a_file_whose_pages_are_in_use_is_sealed_when_they_are_not() {
        let blank = BlankFile::new("test", 4096).unwrap();
        blank.0.write_all_at(&[1; 4096], 0).unwrap();
        let (from, mut to) = (blank.0.try_clone().unwrap(), io::pipe().unwrap());
        // what is spliced into a pipe are the pages themselves, which are in use until they are read
        let spliced = splice(&from, None, &to.1, None, 4096, SpliceFFlags::empty()).unwrap();
        assert_eq!(spliced, 4096);
        let refused = fcntl(&from, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE));
        assert_eq!(refused, Err(Errno::EBUSY), "the page is in use");
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(400));
            let mut page = [0; 4096];
            io::Read::read_exact(&mut to.0, &mut page).unwrap();
            page
        });
        let sealed = blank.seal(&[2; 4096]).unwrap();
        assert_eq!(reader.join().unwrap(), [2; 4096], "it was the page of the file");
        assert_eq!(std::fs::read(sealed.path()).unwrap(), [2; 4096]);
    }

    #[test]
    fn no_two_sealed_files_have_the_same_path_though_their_descriptors_come_again() {
        let mut paths = BTreeSet::new();
        for text in ["one", "two", "three", "four", "five"] {
            let file = sealed_memory_file("test", text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
            assert!(paths.insert(file.path().into_os_string()), "{:?}", file.path());
        }
    }
}
