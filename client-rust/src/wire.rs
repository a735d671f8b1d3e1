//! The writing half of a connection. Nobody who writes waits for the peer.
//!
//! Invariants: frames leave whole, in the order in which they were given. What the socket does not take at once is left to a
//! thread, which is there while something is left and a while longer; no system call that may wait is made under the lock. What
//! is left is bounded by whoever asks [`Wire::is_busy`] before a frame is given.

use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nexus_protocol::limits::{CLIENT_IDLE_THREAD_MS, FRAME_BUFFER_KEEP_BYTES};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::slot::lock;

/// See the module.
pub(crate) struct Wire {
    stream: UnixStream,
    state: Mutex<State>,
    /// Something is left for the thread, or the end has come.
    more: Condvar,
    /// Nothing is left.
    free: Condvar,
    /// The same, to be looked at without the lock.
    busy: AtomicBool,
}

#[derive(Default)]
struct State {
    /// For the next frame.
    buffer: Vec<u8>,
    left: VecDeque<Left>,
    writer: Writer,
    closed: bool,
}

struct Left {
    bytes: Vec<u8>,
    /// So many have been written.
    from: usize,
}

/// What the thread does.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Absent,
    Idle,
    Writing,
}

impl Wire {
    pub(crate) fn new(stream: UnixStream) -> Arc<Self> {
        Arc::new(Self {
            stream,
            state: Mutex::default(),
            more: Condvar::new(),
            free: Condvar::new(),
            busy: AtomicBool::new(false),
        })
    }

    /// Whether frames that were given wait for the peer to read.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Waits until none does, or the connection has ended. For threads of the client's own.
    pub(crate) fn wait_until_free(&self) {
        let state = lock(&self.state);
        drop(self.free.wait_while(state, |state| state.is_busy()).unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes what `fill` puts into the buffer: whole frames. No other frame comes between two calls of `fill` and what they put there.
    pub(crate) fn write<E>(self: &Arc<Self>, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let mut state = lock(&self.state);
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.clear();
        let filled = fill(&mut buffer);
        if filled.is_err() || buffer.is_empty() {
            state.keep(buffer);
        } else {
            self.give(&mut state, buffer);
        }
        filled
    }

    fn give(self: &Arc<Self>, state: &mut State, bytes: Vec<u8>) {
        if state.closed {
            return;
        }
        let from = if state.is_busy() { 0 } else { self.send_now(&bytes) };
        if from == bytes.len() {
            return state.keep(bytes);
        }
        state.left.push_back(Left { bytes, from });
        self.busy.store(true, Ordering::Release);
        match state.writer {
            Writer::Writing => {}
            Writer::Idle => self.more.notify_one(),
            Writer::Absent => {
                let this = Arc::clone(self);
                match thread::Builder::new().name("nexus-writer".to_owned()).spawn(move || this.work()) {
                    Ok(_) => {}
                    // Half a frame is of no use to anybody.
                    Err(_) => return self.end(),
                }
            }
        }
        state.writer = Writer::Writing;
    }

    /// How many bytes the socket takes now. All of them when it has ended: the reader thread tells everybody.
    fn send_now(&self, bytes: &[u8]) -> usize {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            match send(self.stream.as_raw_fd(), rest, flags) {
                Ok(length) => sent += length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return sent,
                Err(_) => {
                    self.end();
                    return bytes.len();
                }
            }
        }
        sent
    }

    /// On a thread of its own.
    fn work(&self) {
        let mut state = lock(&self.state);
        loop {
            while let Some(Left { bytes, from }) = state.left.pop_front() {
                drop(state);
                if (&self.stream).write_all(bytes.get(from..).unwrap_or_default()).is_err() {
                    self.end();
                }
                drop(bytes);
                state = lock(&self.state);
            }
            state.writer = Writer::Idle;
            self.busy.store(false, Ordering::Release);
            self.free.notify_all();
            let idle = Duration::from_millis(CLIENT_IDLE_THREAD_MS);
            let nothing = |state: &mut State| state.left.is_empty() && !state.closed;
            state = self.more.wait_timeout_while(state, idle, nothing).unwrap_or_else(PoisonError::into_inner).0;
            if state.left.is_empty() {
                state.writer = Writer::Absent;
                return;
            }
        }
    }

    /// The reader thread finds the connection at its end, and tells everybody how it came to that.
    fn end(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The connection has ended: nothing more is written.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.left.clear();
        state.buffer = Vec::new();
        drop(state);
        self.more.notify_one();
        self.free.notify_all();
    }
}

impl State {
    fn is_busy(&self) -> bool {
        !self.closed && self.writer == Writer::Writing
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= FRAME_BUFFER_KEEP_BYTES {
            self.buffer = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read;

    use super::*;

    fn put(wire: &Arc<Wire>, byte: u8, length: usize) {
        let filled: Result<(), Infallible> = wire.write(|buffer| {
            buffer.resize(length, byte);
            Ok(())
        });
        filled.unwrap();
    }

    #[test]
    fn a_peer_that_does_not_read_keeps_nobody_and_gets_everything_in_order_when_it_does() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let wire = Wire::new(ours);
        put(&wire, 0, 10);
        assert!(!wire.is_busy(), "the socket has taken it");
        let lengths = [10, 8 << 20, 5, 1 << 20, 7];
        for (byte, length) in (0..).zip(lengths).skip(1) {
            put(&wire, byte, length);
            assert!(wire.is_busy());
        }
        for (byte, length) in (0..).zip(lengths) {
            let mut frame = vec![0xff; length];
            theirs.read_exact(&mut frame).unwrap();
            assert!(frame.iter().all(|&read| read == byte), "{byte}");
        }
        wire.wait_until_free();
        assert!(!wire.is_busy());
        put(&wire, 9, 1);
        theirs.read_exact(&mut [0]).unwrap();
        wire.close();
    }

    #[test]
    fn the_end_of_a_connection_sets_its_thread_and_whoever_waits_free() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wire = Wire::new(ours);
        put(&wire, 1, 8 << 20);
        put(&wire, 2, 8 << 20);
        let waiter = thread::spawn({
            let wire = Arc::clone(&wire);
            move || wire.wait_until_free()
        });
        drop(theirs);
        waiter.join().unwrap();
        wire.close();
        put(&wire, 3, 1);
        wire.wait_until_free();
        while Arc::strong_count(&wire) > 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
