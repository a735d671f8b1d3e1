//! The disk tier of a process that may open no file: it asks another one, which has the directory and the key.
//!
//! ```text
//! reads:   digest (32) -->                      writes:  digest (32), length (8), body -->
//!          <-- length and 1 (8), or 0; body
//! ```
//! The bodies are those of cache entries, without header and tag. Whoever has the directory hands out what was verified. Of
//! what it is handed it sees that the digest is that of the source in it, and not whether the bytecode is: it trusts whoever
//! compiles as far as that goes. What it reads is bounded by the largest entry, and is taken into memory as it comes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{CACHE_FLUSH_MS, SHELF_TIMEOUT_MS};

use super::disk::{DiskTier, MAX_QUEUED, MAX_QUEUED_BYTES};
use super::entry::{read_body, write_body};
use super::{Handler, HandlerDigest, LowerCounts, LowerTier};

/// Between two looks whether the writer is done.
const FLUSH_SLICE: Duration = Duration::from_millis(1);

/// See the module: the side that asks.
pub struct Shelf {
    engine: [u8; 32],
    /// None: something went wrong, and nobody knows what comes next on it.
    reads: Mutex<Option<UnixStream>>,
    queue: Mutex<Option<SyncSender<Arc<Handler>>>>,
    queued_bytes: Arc<AtomicU64>,
    writer: Mutex<Option<JoinHandle<()>>>,
    counts: Box<dyn Fn() -> LowerCounts + Send + Sync>,
}

impl Shelf {
    /// `counts`: what the other side knows of its directory.
    pub fn start(
        engine: [u8; 32],
        reads: UnixStream,
        writes: UnixStream,
        counts: Box<dyn Fn() -> LowerCounts + Send + Sync>,
    ) -> io::Result<Self> {
        // whoever waits for it has a request
        reads.set_read_timeout(Some(Duration::from_millis(SHELF_TIMEOUT_MS)))?;
        let (queue, queued) = sync_channel(MAX_QUEUED);
        let queued_bytes = Arc::<AtomicU64>::default();
        let bytes = queued_bytes.clone();
        let life = move || write_queued(&queued, &bytes, &writes);
        let writer = thread::Builder::new().name("cache".to_owned()).spawn(life)?;
        let (reads, queue, writer) = (Mutex::new(Some(reads)), Mutex::new(Some(queue)), Mutex::new(Some(writer)));
        Ok(Self { engine, reads, queue, queued_bytes, writer, counts })
    }

    fn ask(stream: &mut UnixStream, digest: &HandlerDigest) -> io::Result<Option<Vec<u8>>> {
        stream.write_all(&digest.0)?;
        let mut len = [0; 8];
        stream.read_exact(&mut len)?;
        let Some(len) = u64::from_le_bytes(len).checked_sub(1) else { return Ok(None) };
        let mut body = Vec::new();
        stream.take(len).read_to_end(&mut body)?;
        if body.len() as u64 != len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Some(body)) }
    }
}

fn write_queued(queue: &Receiver<Arc<Handler>>, queued_bytes: &AtomicU64, mut writes: &UnixStream) {
    let mut entry = Vec::new();
    for handler in queue {
        queued_bytes.fetch_sub(handler.weight(), Relaxed);
        entry.clear();
        entry.extend_from_slice(&handler.digest.0);
        entry.extend_from_slice(&[0; 8]);
        write_body(&handler, &mut entry);
        let len = (entry.len() - 40) as u64;
        entry[32..40].copy_from_slice(&len.to_le_bytes());
        if let Err(e) = writes.write_all(&entry) {
            return log::warn!("compiled handlers are not kept any more: {e}");
        }
    }
}

impl LowerTier for Shelf {
    fn read(&self, digest: &HandlerDigest) -> Option<Handler> {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match Self::ask(reads.as_mut()?, digest) {
            Ok(body) => body?,
            Err(e) => {
                log::warn!("compiled handlers are not looked for any more: {e}");
                *reads = None;
                return None;
            }
        };
        drop(reads);
        read_body(&self.engine, digest, &body).inspect_err(|e| log::warn!("a kept handler is not used: {e}")).ok()
    }

    fn write(&self, handler: &Arc<Handler>) {
        let weight = handler.weight();
        let queued = self.queued_bytes.fetch_add(weight, Relaxed);
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = queued.saturating_add(weight) <= MAX_QUEUED_BYTES
            && queue.as_ref().is_some_and(|queue| queue.try_send(handler.clone()).is_ok());
        if !sent {
            self.queued_bytes.fetch_sub(weight, Relaxed);
        }
    }

    fn flush(&self) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let until = Instant::now() + Duration::from_millis(CACHE_FLUSH_MS);
        while !writer.is_finished() {
            if Instant::now() >= until {
                return log::warn!("whoever keeps compiled handlers is slow: some are not kept");
            }
            thread::sleep(FLUSH_SLICE);
        }
    }

    fn counts(&self) -> LowerCounts {
        (self.counts)()
    }
}

/// The side that has the directory: hands out handlers until the other end is gone.
pub fn serve_reads(disk: &DiskTier, mut stream: &UnixStream) {
    let mut digest = [0; 32];
    while stream.read_exact(&mut digest).is_ok() {
        let mut reply = vec![0; 8];
        if let Some(handler) = disk.read(&HandlerDigest(digest)) {
            write_body(&handler, &mut reply);
            let len = (reply.len() - 8) as u64 + 1;
            reply[..8].copy_from_slice(&len.to_le_bytes());
        }
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

/// Takes handlers in until the other end is gone, or says something that makes no sense.
pub fn serve_writes(disk: &DiskTier, engine: &[u8; 32], mut stream: &UnixStream) {
    let mut header = [0; 40];
    while stream.read_exact(&mut header).is_ok() {
        let (digest, len) = header.split_at(32);
        let digest = HandlerDigest(digest.try_into().unwrap_or_default());
        let len = u64::from_le_bytes(len.try_into().unwrap_or_default());
        if len > disk.max_entry_bytes() {
            // it would not be kept; but it has to be read, as something may come behind it
            match io::copy(&mut stream.take(len), &mut io::sink()) {
                Ok(read) if read == len => continue,
                _ => return,
            }
        }
        let mut body = Vec::new();
        match stream.take(len).read_to_end(&mut body) {
            Ok(read) if read as u64 == len => {}
            _ => return,
        }
        match read_body(engine, &digest, &body) {
            Ok(handler) => disk.write(&Arc::new(handler)),
            Err(e) => return log::warn!("a worker handed over something that is no compiled handler: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiled::tests::handler;
    use super::super::scratch::Scratch;
    use super::*;

    /// That of the handlers.
    const ENGINE: [u8; 32] = [0; 32];

    fn with_shelf<T>(disk: &DiskTier, work: impl FnOnce(Shelf) -> T) -> T {
        let (reads, asked) = UnixStream::pair().unwrap();
        let (writes, handed) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || serve_reads(disk, &asked));
            scope.spawn(move || serve_writes(disk, &ENGINE, &handed));
            work(Shelf::start(ENGINE, reads, writes, Box::new(LowerCounts::default)).unwrap())
        })
    }

    #[test]
    fn what_is_handed_over_is_found_again_as_it_was() {
        let scratch = Scratch::new();
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        let handlers: Vec<Arc<Handler>> = (0..50).map(|n| Arc::new(handler(&format!("return {n}"), 100))).collect();
        with_shelf(&disk, |shelf| {
            for handler in &handlers {
                assert!(shelf.read(&handler.digest).is_none());
                shelf.write(handler);
            }
            shelf.flush();
        });
        disk.flush();
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        with_shelf(&disk, |shelf| {
            for handler in &handlers {
                let found = shelf.read(&handler.digest).unwrap();
                assert_eq!((&found.source, &found.bytecode), (&handler.source, &handler.bytecode));
            }
        });
    }

    #[test]
    fn a_handler_under_the_digest_of_another_is_not_taken_in() {
        let scratch = Scratch::new();
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        let (good, other) = (handler("return 1", 100), handler("return 2", 100));
        let (mut writes, handed) = UnixStream::pair().unwrap();
        let forged = |digest: &HandlerDigest, body: &[u8]| {
            let mut entry = digest.0.to_vec();
            entry.extend_from_slice(&(body.len() as u64).to_le_bytes());
            entry.extend_from_slice(body);
            entry
        };
        let mut body = Vec::new();
        write_body(&other, &mut body);
        let writer = thread::spawn(move || {
            // one that is too large is passed over; one under another's name ends it
            let _ = writes.write_all(&forged(&good.digest, &vec![0; (1 << 20) + 1]));
            let _ = writes.write_all(&forged(&other.digest, &body));
            let _ = writes.write_all(&forged(&good.digest, &body));
            let _ = writes.write_all(&forged(&other.digest, &body));
            (good, other)
        });
        serve_writes(&disk, &ENGINE, &handed);
        drop(handed);
        let (good, other) = writer.join().unwrap();
        disk.flush();
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        assert!(disk.read(&good.digest).is_none() && disk.read(&other.digest).is_some());
    }
}
