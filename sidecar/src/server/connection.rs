//! The writing half of a connection. Any thread appends whole frames; whoever flushes writes as much as the socket takes, and
//! the poller writes the rest when the socket has room again.
//!
//! The buffer's lock is held while an answer is encoded and while the socket is written to. So the watchdog never takes it:
//! it asks for `pending_bytes`, which needs no lock, and leaves what it has to say to the thread that has the poller.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nexus_protocol::{Pieces, RequestId, SidecarMessage};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};

use super::hub::SessionId;
use crate::faults::{self, Point};

/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BYTES: usize = 256 << 10;

/// Pieces that go out with one call of the kernel: with values of a kilobyte as much as a socket takes.
const PIECES_PER_WRITE: usize = 256;

/// What a flush left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    All,
    /// The socket is full.
    Blocked,
    /// The peer is gone.
    Broken,
}

#[derive(Debug, Default)]
struct Out {
    /// Large values in it are shared with the execution that made them.
    bytes: Pieces,
    written: usize,
}

impl Out {
    fn rest(&self) -> usize {
        self.bytes.len() - self.written
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    pub session: SessionId,
    stream: UnixStream,
    out: Mutex<Out>,
    /// What `out` has to write, as of the last time that its lock was let go.
    pending: AtomicUsize,
    max_frame_bytes: usize,
    /// As the client calls itself.
    client: OnceLock<Box<str>>,
    peer: Option<UnixCredentials>,
}

impl Connection {
    pub fn new(session: SessionId, stream: UnixStream, max_frame_bytes: usize) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials).ok();
        let (out, client) = (Mutex::new(Out::default()), OnceLock::new());
        Ok(Self { session, stream, out, pending: AtomicUsize::new(0), max_frame_bytes, client, peer })
    }

    /// The client has said who it is.
    pub fn introduce(&self, client: &str) {
        let _ = self.client.set(client.into());
    }

    pub fn client(&self) -> &str {
        self.client.get().map_or("", |client| client)
    }

    /// Process of the peer when it connected; for people, since its number may be another's by now.
    pub fn peer_pid(&self) -> u32 {
        self.peer.and_then(|peer| u32::try_from(peer.pid()).ok()).unwrap_or(0)
    }

    /// User of the peer.
    pub fn peer_uid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.uid())
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends frames; `f` must append whole ones.
    pub fn append(&self, f: impl FnOnce(&mut Pieces, usize)) {
        let mut out = self.lock();
        f(&mut out.bytes, self.max_frame_bytes);
        self.pending.store(out.rest(), Ordering::Release);
    }

    /// Appends one message.
    pub fn send(&self, id: RequestId, message: &SidecarMessage<'_>) {
        self.append(|out, max| {
            if let Err(e) = message.encode(id, max, out.own()) {
                log::error!("cannot encode an answer: {e}");
            }
        });
    }

    /// Bytes that wait for the peer to read. Waits for nobody: while somebody appends or writes it is what was there before.
    pub fn pending_bytes(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    pub fn flush(&self) -> Flushed {
        let mut out = self.lock();
        let flushed = self.write_out(&mut out);
        self.pending.store(out.rest(), Ordering::Release);
        flushed
    }

    fn write_out(&self, out: &mut Out) -> Flushed {
        while out.written < out.bytes.len() {
            let write = |len| match out.bytes.as_slice() {
                Some(bytes) => (&self.stream).write(bytes.get(out.written..out.written + len).unwrap_or_default()),
                None => {
                    let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
                    let used = out.bytes.gather(out.written, len, &mut slices);
                    (&self.stream).write_vectored(slices.get(..used).unwrap_or_default())
                }
            };
            match faults::transfer(Point::Write, out.bytes.len() - out.written).and_then(write) {
                Ok(0) => return Flushed::Broken,
                Ok(n) => out.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => return Flushed::Broken,
            }
        }
        out.written = 0;
        out.bytes.clear();
        if out.bytes.own().capacity() > KEEP_BYTES {
            out.bytes = Pieces::new();
        }
        Flushed::All
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
