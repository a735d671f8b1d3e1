//! The writing half of a connection. Any thread appends whole frames; whoever flushes writes as much as the socket takes, and
//! the poller writes the rest when the socket has room again.
//!
//! The buffer's lock is held while an answer is encoded and while the socket is written to. So the watchdog never takes it:
//! it asks for `pending_bytes`, which needs no lock, and leaves what it has to say to the thread that has the poller.
//!
//! What nobody has read yet is counted, and a connection that has too much of it [`is_over`](Connection::is_over): nothing more
//! is read from it, and nothing more is begun for it.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nexus_protocol::limits::{FREE_BUFFER_BYTES, MAX_PENDING_LISTS, MAX_UNREAD_BYTES};
use nexus_protocol::{Pieces, RequestId, SidecarMessage};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt};

use super::door::Place;
use super::hub::SessionId;
use super::mark::Mark;
use super::memory::Memory;
use crate::budget::{Budget, Charge};
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

#[derive(Debug)]
struct Out {
    /// Large values in it are shared with the execution that made them.
    bytes: Pieces,
    written: usize,
    /// The last word is in it.
    finished: bool,
    /// Answers in it, which are reasons for doubt until all of them have left.
    answers: u64,
    /// Of the bytes, where they are more than every connection may have.
    charge: Charge,
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
    /// Bytes that the socket has taken.
    written: AtomicU64,
    /// What this one has unread, of what all may have.
    unread: Arc<Budget>,
    /// What this one has sent and is not done with.
    received: Arc<Budget>,
    max_frame_bytes: usize,
    /// As the client calls itself.
    client: OnceLock<Box<str>>,
    peer: Option<UnixCredentials>,
    place: Place,
    /// Lists that the housekeeper has to make for it.
    lists: AtomicUsize,
    /// A large answer is being made.
    building: AtomicBool,
    pub mark: Mark,
}

/// A large answer that is being made.
#[derive(Debug)]
pub struct Building<'a>(&'a Connection);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.building.store(false, Ordering::Release);
    }
}

impl Connection {
    pub fn admitted(
        session: SessionId,
        stream: UnixStream,
        max_frame_bytes: usize,
        place: Place,
        memory: &Memory,
        mark: Mark,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials).ok();
        let unread = memory.unread_of_connection();
        let out = Out { bytes: Pieces::new(), written: 0, finished: false, answers: 0, charge: unread.nothing() };
        Ok(Self {
            session,
            stream,
            out: Mutex::new(out),
            pending: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            unread,
            received: memory.of_connection(),
            max_frame_bytes,
            client: OnceLock::new(),
            peer,
            place,
            lists: AtomicUsize::new(0),
            building: AtomicBool::new(false),
            mark,
        })
    }

    /// One that shares nothing with others.
    #[cfg(test)]
    pub fn new(session: SessionId, stream: UnixStream, max_frame_bytes: usize) -> io::Result<Self> {
        let place = super::door::Places::new(&[]).of_parent();
        Self::admitted(session, stream, max_frame_bytes, place, &Memory::new(max_frame_bytes), Mark::default())
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

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The largest body that is sent to it.
    pub fn max_frame_bytes(&self) -> usize {
        self.max_frame_bytes
    }

    /// By which everything is counted that it has sent and that is not done with.
    pub fn received(&self) -> &Arc<Budget> {
        &self.received
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others may know how much there is to write.
    fn note(&self, out: &mut Out) {
        self.pending.store(out.rest(), Ordering::Release);
        let held = out.bytes.len();
        out.charge.set(if held > FREE_BUFFER_BYTES { held as u64 } else { 0 });
    }

    /// Appends a frame that nobody waits for, or an answer to what was no work; `f` must append whole ones. When it panics nothing of
    /// them is there.
    pub fn append(&self, f: impl FnOnce(&mut Pieces, usize)) {
        self.mark.doubt();
        self.append_charged(None, f);
    }

    /// As `append`, for the answer to a request that was work, which is a reason for doubt since it came.
    pub fn append_answer(&self, f: impl FnOnce(&mut Pieces, usize)) {
        self.append_charged(None, f);
    }

    /// As `append_answer`, for a large answer that was counted before it was made.
    pub fn append_charged(&self, charge: Option<Charge>, f: impl FnOnce(&mut Pieces, usize)) {
        let mut out = self.lock();
        if let Some(charge) = charge {
            out.charge.merge(charge);
        }
        if out.finished {
            return;
        }
        out.answers += 1;
        let mark = out.bytes.mark();
        let appended = catch_unwind(AssertUnwindSafe(|| f(&mut out.bytes, self.max_frame_bytes)));
        if appended.is_err() {
            out.bytes.cut_back(mark);
        }
        self.note(&mut out);
        drop(out);
        if let Err(panic) = appended {
            resume_unwind(panic);
        }
    }

    /// Appends one message.
    pub fn send(&self, id: RequestId, message: &SidecarMessage<'_>) {
        self.append(|out, max| encode(out, max, id, message));
    }

    /// As `send`, for the answer to a request that was work.
    pub fn send_answer(&self, id: RequestId, message: &SidecarMessage<'_>) {
        self.append_answer(|out, max| encode(out, max, id, message));
    }

    /// Nothing that is appended from now on is sent.
    pub fn finish(&self) {
        self.lock().finished = true;
    }

    /// Bytes that wait for the peer to read. Waits for nobody: while somebody appends or writes it is what was there before.
    pub fn pending_bytes(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Bytes that the socket has taken so far.
    pub fn written_bytes(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether so much is unread that nothing more may be begun for it: too much of its own, or, while all connections together
    /// have too much, more than is kept for it. A large answer that is being made is too much, too. Costs a load or two.
    pub fn is_over(&self) -> bool {
        self.building.load(Ordering::Acquire) || self.has_unread()
    }

    fn has_unread(&self) -> bool {
        let pending = self.pending_bytes();
        pending > MAX_UNREAD_BYTES || pending > FREE_BUFFER_BYTES && self.unread.full().is_some()
    }

    /// A large answer is to be made. None: not now, since another one is being made, or not read.
    pub fn begin_large(&self) -> Option<Building<'_>> {
        let free = self.building.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        let building = free.then(|| Building(self))?;
        (!self.has_unread()).then_some(building)
    }

    /// By which everything is counted that it has not read.
    pub fn unread(&self) -> &Arc<Budget> {
        &self.unread
    }

    /// A list is to be made for it. False: enough of them are.
    pub fn begin_list(&self) -> bool {
        let begun = |lists: usize| (lists < MAX_PENDING_LISTS).then_some(lists + 1);
        let begins = self.lists.fetch_update(Ordering::AcqRel, Ordering::Acquire, begun).is_ok();
        if begins {
            self.mark.doubt();
        }
        begins
    }

    pub fn end_list(&self) {
        self.lists.fetch_sub(1, Ordering::AcqRel);
        self.mark.trust(1);
    }

    /// Whether the housekeeper still has to say something to it.
    pub fn waits_for_list(&self) -> bool {
        self.lists.load(Ordering::Acquire) > 0
    }

    pub fn flush(&self) -> Flushed {
        let mut out = self.lock();
        let flushed = self.write_out(&mut out);
        self.note(&mut out);
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
                Ok(n) => {
                    out.written += n;
                    self.written.fetch_add(n as u64, Ordering::AcqRel);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // a peer that reads slowly does not have us keep what it has read
                    if out.written > KEEP_BYTES && out.written > out.bytes.len() / 2 {
                        let written = std::mem::take(&mut out.written);
                        out.bytes.discard(written);
                    }
                    return Flushed::Blocked;
                }
                Err(_) => return Flushed::Broken,
            }
        }
        out.written = 0;
        self.mark.trust(std::mem::take(&mut out.answers));
        out.bytes.clear();
        if out.bytes.own().capacity() > KEEP_BYTES {
            out.bytes = Pieces::new();
        }
        Flushed::All
    }
}

fn encode(out: &mut Pieces, max: usize, id: RequestId, message: &SidecarMessage<'_>) {
    if let Err(e) = message.encode(id, max, out.own()) {
        log::error!("cannot encode an answer: {e}");
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nexus_protocol::message::Done;

    use super::*;

    fn pair() -> (UnixStream, Connection) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, Connection::new(SessionId(16), theirs, 1 << 20).unwrap())
    }

    #[test]
    fn a_panic_while_an_answer_is_written_leaves_no_half_of_it() {
        let (mut ours, connection) = pair();
        let done = SidecarMessage::Done(Done { cancelled: true });
        connection.send(RequestId(1), &done);
        let half = AssertUnwindSafe(|| {
            connection.append(|out, _| {
                out.own().extend_from_slice(b"half a frame");
                panic!("as planned");
            });
        });
        assert!(catch_unwind(half).is_err());
        connection.send(RequestId(2), &done);
        assert_eq!(connection.flush(), Flushed::All);
        let mut expected = Vec::new();
        done.encode(RequestId(1), 1 << 20, &mut expected).unwrap();
        done.encode(RequestId(2), 1 << 20, &mut expected).unwrap();
        let mut read = vec![0; expected.len()];
        ours.read_exact(&mut read).unwrap();
        assert_eq!(read, expected);
        assert_eq!(connection.pending_bytes(), 0);
    }

    #[test]
    fn what_is_unread_counts_until_it_is_read_and_no_longer() {
        let (mut ours, connection) = pair();
        let total = connection.unread.clone();
        connection.append(|out, _| out.own().extend_from_slice(&[7; FREE_BUFFER_BYTES]));
        assert_eq!(total.used(), 0, "a small part is free");
        connection.append(|out, _| out.own().resize(9 << 20, 7));
        assert_eq!((total.used(), connection.is_over()), (9 << 20, true));
        let mut read = 0;
        while read < 9 << 20 {
            connection.flush();
            let n = ours.read(&mut vec![0; 1 << 20]).unwrap();
            read += n;
            let unread = (9 << 20) - connection.written_bytes() as usize;
            assert_eq!(connection.pending_bytes(), unread);
            assert!(total.used() <= (2 * unread + KEEP_BYTES) as u64, "{} for {unread}", total.used());
        }
        assert_eq!((total.used(), connection.is_over()), (0, false));
    }

    #[test]
    fn one_large_answer_is_made_at_a_time_and_none_while_one_is_not_read() {
        let (_ours, connection) = pair();
        let building = connection.begin_large().unwrap();
        assert!(connection.is_over() && connection.begin_large().is_none());
        connection.append(|out, _| out.own().resize(MAX_UNREAD_BYTES + 1, 7));
        drop(building);
        assert!(connection.is_over() && connection.begin_large().is_none());
        connection.flush();
        let (_ours, other) = pair();
        drop(other.begin_large().unwrap());
        assert!(!other.is_over());
    }

    #[test]
    fn while_all_have_too_much_unread_less_is_too_much() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let (memory, place) = (Memory::new(1 << 20), super::super::door::Places::new(&[]).of_parent());
        let connection = Connection::admitted(SessionId(16), theirs, 1 << 20, place, &memory, Mark::default()).unwrap();
        connection.append(|out, _| out.own().resize(FREE_BUFFER_BYTES + 1, 7));
        assert!(!connection.is_over());
        let others = memory.unread_of_connection();
        let mut held = others.nothing();
        held.set(nexus_protocol::limits::MAX_TOTAL_UNREAD_BYTES);
        assert!(!connection.is_over(), "it has little");
        connection.append(|out, _| out.own().resize(MAX_UNREAD_BYTES - 1, 7));
        assert!(!connection.is_over(), "and still less than what is kept for such");
        held.set(nexus_protocol::limits::MAX_TOTAL_UNREAD_BYTES + (24 << 20));
        assert!(connection.is_over());
        drop(held);
        assert!(!connection.is_over());
    }
}
