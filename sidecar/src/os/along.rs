//! Descriptors that peers send along with their bytes, of which we want none.
//!
//! Where the last descriptor of something is closed takes as long as its owner wants: a TCP socket may linger for hours, and a file
//! system that a peer has made may never answer. The kernel closes what nobody takes, in the thread that reads the bytes, or that
//! closes the socket with the bytes in it. From 6.16 on it refuses such descriptors where they are sent. Before, they are all taken
//! here, also before a socket is closed, and threads close them that nobody waits for. When all of these are busy, the next
//! descriptor has a signal sent to one: a socket that lingers does it no longer then.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem::{MaybeUninit, offset_of};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Thread;
use crate::faults::{self, Point};

/// The kernel sends no more with one message.
const MAX_DESCRIPTORS: usize = 253;
/// Room for them with their head.
const SPACE_BYTES: usize = 1056;
const MAX_CLOSERS: usize = 8;
/// Read at once of what nobody wants.
const REST_BYTES: usize = 4096;

/// Whether they come, since the kernel does not know how to refuse them.
static THEY_COME: AtomicBool = AtomicBool::new(false);

static LEFT: Mutex<Left> = Mutex::new(Left { waiting: Vec::new(), closers: 0, busy: VecDeque::new() });

/// Those that have come along and are not closed yet.
struct Left {
    waiting: Vec<OwnedFd>,
    closers: usize,
    /// Those of them that run; whoever was sent a signal last comes last.
    busy: VecDeque<Thread>,
}

/// Whoever is connected to the socket, or to one that it accepts, may send no descriptors along.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let (off, len) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    let refuse = || {
        // SAFETY: the value is an int that lives through the call, and the length is its own
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const off).cast(), len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let refused = faults::io(Point::Rights).and_then(|()| refuse());
    if refused.is_err() {
        expect_descriptors();
    }
    refused
}

/// Whether descriptors come along on this kernel, as far as it was found out by now.
pub fn descriptors_come() -> bool {
    THEY_COME.load(Ordering::Relaxed)
}

/// Somebody else has found out that they do.
pub fn expect_descriptors() {
    THEY_COME.store(true, Ordering::Relaxed);
}

/// Reads what a peer has sent, without what came along.
pub fn read_from_peer(mut stream: &UnixStream, room: &mut [u8]) -> io::Result<usize> {
    if THEY_COME.load(Ordering::Relaxed) { receive(stream.as_fd(), room) } else { stream.read(room) }
}

/// Before a socket of a peer is closed: nothing more comes, and what has come is taken out, which is no more than a socket holds.
pub fn let_go_of_rest(stream: &UnixStream) {
    if !THEY_COME.load(Ordering::Relaxed) {
        return;
    }
    let _ = stream.shutdown(Shutdown::Both);
    let mut bytes = [0; REST_BYTES];
    loop {
        match receive(stream.as_fd(), &mut bytes) {
            Ok(0) => return,
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

/// Room for what comes along, where the kernel wants it.
#[repr(C, align(8))]
struct Space(MaybeUninit<[u8; SPACE_BYTES]>);

fn receive(socket: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: has no precondition.
    const { assert!(unsafe { libc::CMSG_SPACE((MAX_DESCRIPTORS * size_of::<RawFd>()) as u32) } as usize <= SPACE_BYTES) };
    const { assert!(offset_of!(Space, 0) == 0) };
    let mut space = Space(MaybeUninit::uninit());
    let mut piece = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: it is a structure of numbers and pointers, which may all be zero.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    (head.msg_iov, head.msg_iovlen) = (&raw mut piece, 1);
    (head.msg_control, head.msg_controllen) = ((&raw mut space).cast(), SPACE_BYTES as _);
    // SAFETY: bytes go to `room`, which is borrowed for as long, and what comes along to `space`; each has the length that is said.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut head, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled `head` and as much of `space` as it says there.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(&raw const head) };
    // SAFETY: it points to a part that the kernel has written, or to nothing.
    while let Some(one) = unsafe { part.as_ref() } {
        if (one.cmsg_level, one.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: has no precondition.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the part is one that the kernel has written.
            let numbers = unsafe { libc::CMSG_DATA(part) }.cast::<RawFd>();
            for at in 0..one.cmsg_len.saturating_sub(empty) / size_of::<RawFd>() {
                // SAFETY: so many numbers follow the head of this part.
                let number = unsafe { numbers.add(at) };
                // SAFETY: as above; they need not be aligned.
                let number = unsafe { number.read_unaligned() };
                // SAFETY: each is of a descriptor that was made for us alone.
                let_go(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: as above; the next part is within what the kernel has written, or there is none.
        part = unsafe { libc::CMSG_NXTHDR(&raw const head, part) };
    }
    Ok(got)
}

/// Sees to it that somebody closes it.
fn let_go(fd: OwnedFd) {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.waiting.push(fd);
    if left.closers < MAX_CLOSERS {
        // where no thread can be started, the next one that comes along has another try
        let started = std::thread::Builder::new().name("closer".into()).spawn(close_those_left);
        left.closers += usize::from(started.is_ok());
    } else if let Some(busy) = left.busy.pop_front() {
        busy.is_to_give_way();
        left.busy.push_back(busy);
    }
}

/// The life of a thread that closes them.
fn close_those_left() {
    let this = Thread::this();
    let left = || LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left().busy.extend(this);
    let next = || {
        let mut left = left();
        let next = left.waiting.pop();
        if next.is_none() {
            left.closers -= 1;
            left.busy.retain(|busy| Some(*busy) != this);
        }
        next
    };
    while let Some(fd) = next() {
        drop(fd);
    }
}
