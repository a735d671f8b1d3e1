//! The disk tier of a process that may open no file: it asks another one, which has the directory and the key.
//!
//! ```text
//! reads:   digest (32) -->                      writes:  mode (1), length (8), source -->
//!          <-- length and 1 (8), or 0; body
//! ```
//! The bodies are those of cache entries, without header and tag. Whoever has the directory hands out what was verified. It is handed
//! sources alone: whoever runs guests may have been taken over by one, and would hand over bytecode of its own choice for everybody's
//! handlers. What it reads is bounded by the longest source, and is taken into memory as it comes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nexus_protocol::limits::{CACHE_FLUSH_MS, SHELF_TIMEOUT_MS};
use nexus_protocol::message::SuspendMode;

use super::disk::{DiskTier, MAX_QUEUED, MAX_QUEUED_BYTES};
use super::entry::{read_body, write_body};
use super::{Handler, HandlerDigest, LowerCounts, LowerTier};

/// Mode and length.
const SOURCE_HEADER_BYTES: usize = 9;
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
        let life = move || write_queued(&engine, &queued, &bytes, &writes);
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

fn write_queued(engine: &[u8; 32], queue: &Receiver<Arc<Handler>>, queued_bytes: &AtomicU64, mut writes: &UnixStream) {
    for handler in queue {
        queued_bytes.fetch_sub(handler.weight(), Relaxed);
        let forced = handler.digest != HandlerDigest::new(engine, &handler.source);
        let mode = if forced { Some(handler.suspend_mode) } else { None };
        if let Err(e) = write_source(&mut writes, mode, &handler.source) {
            return log::warn!("compiled handlers are not kept any more: {e}");
        }
    }
}

/// `mode`: the one that was asked for.
pub fn write_source(mut to: impl Write, mode: Option<SuspendMode>, source: &str) -> io::Result<()> {
    let mut header = [0; SOURCE_HEADER_BYTES];
    header[0] = match mode {
        None => 0,
        Some(SuspendMode::Await) => 1,
        Some(SuspendMode::Stack) => 2,
    };
    header[1..].copy_from_slice(&(source.len() as u64).to_le_bytes());
    to.write_all(&header)?;
    to.write_all(source.as_bytes())
}

/// What was written like that. None: there is no more, or it makes no sense.
pub fn read_source(mut from: impl Read, max_bytes: u64) -> Option<(Option<SuspendMode>, String)> {
    let mut header = [0; SOURCE_HEADER_BYTES];
    from.read_exact(&mut header).ok()?;
    let (mode, len) = header.split_first_chunk::<1>()?;
    let mode = match mode {
        [0] => None,
        [1] => Some(SuspendMode::Await),
        [2] => Some(SuspendMode::Stack),
        _ => return None,
    };
    let len = u64::from_le_bytes(len.try_into().unwrap_or_default());
    let mut source = Vec::new();
    let read = if len > max_bytes { 0 } else { from.take(len).read_to_end(&mut source).ok()? };
    if read as u64 == len { Some((mode, String::from_utf8(source).ok()?)) } else { None }
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

/// The body of a handler's entry.
pub fn body_of(handler: &Handler) -> Vec<u8> {
    let mut body = Vec::new();
    write_body(handler, &mut body);
    body
}

/// The handler of a body, if it is of the source that the digest is of. The bytecode in it is as good as whoever made the body.
pub fn handler_of(engine: &[u8; 32], digest: &HandlerDigest, body: &[u8]) -> io::Result<Handler> {
    read_body(engine, digest, body).map_err(|e| io::Error::other(e.to_string()))
}

/// Takes sources in until the other end is gone, or says something that makes no sense.
pub fn serve_writes(max_source_bytes: u64, mut stream: &UnixStream, keep: impl Fn(Option<SuspendMode>, String)) {
    while let Some((mode, source)) = read_source(&mut stream, max_source_bytes) {
        keep(mode, source);
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiled::tests::handler;
    use super::super::scratch::Scratch;
    use super::*;

    /// That of the handlers.
    const ENGINE: [u8; 32] = [0; 32];

    /// `handlers`: what compiling makes.
    fn with_shelf<T>(disk: &DiskTier, handlers: &[Arc<Handler>], work: impl FnOnce(Shelf) -> T) -> T {
        let (reads, asked) = UnixStream::pair().unwrap();
        let (writes, handed) = UnixStream::pair().unwrap();
        let keep = |mode: Option<SuspendMode>, source: String| {
            assert_eq!(mode, None);
            disk.write(handlers.iter().find(|handler| *handler.source == *source).unwrap());
        };
        thread::scope(|scope| {
            scope.spawn(move || serve_reads(disk, &asked));
            scope.spawn(move || serve_writes(1 << 20, &handed, keep));
            work(Shelf::start(ENGINE, reads, writes, Box::new(LowerCounts::default)).unwrap())
        })
    }

    #[test]
    fn what_is_kept_is_found_again_as_it_was() {
        let scratch = Scratch::new();
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        let handlers: Vec<Arc<Handler>> = (0..50).map(|n| Arc::new(handler(&format!("return {n}"), 100))).collect();
        with_shelf(&disk, &handlers, |shelf| {
            for handler in &handlers {
                assert!(shelf.read(&handler.digest).is_none());
                shelf.write(handler);
            }
            shelf.flush();
        });
        // unlike a flush, it waits for a slow disk
        drop(disk);
        let disk = DiskTier::open(scratch.path(), ENGINE, 1 << 20).unwrap();
        with_shelf(&disk, &handlers, |shelf| {
            for handler in &handlers {
                let found = shelf.read(&handler.digest).unwrap();
                assert_eq!((&found.source, &found.bytecode), (&handler.source, &handler.bytecode));
            }
        });
    }

    #[test]
    fn a_source_is_read_as_it_was_written_and_what_is_none_ends_it() {
        for mode in [None, Some(SuspendMode::Await), Some(SuspendMode::Stack)] {
            for source in ["", "return '\u{1f600}'"] {
                let mut bytes = Vec::new();
                write_source(&mut bytes, mode, source).unwrap();
                assert_eq!(read_source(&bytes[..], 100), Some((mode, source.to_owned())));
                assert_eq!(read_source(&bytes[..bytes.len() - 1], 100), None);
                if !source.is_empty() {
                    assert_eq!(read_source(&bytes[..], source.len() as u64 - 1), None);
                }
            }
        }
        let mut random = crate::random::Random(11);
        for _ in 0..10_000 {
            let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
            if let Some((mode, source)) = read_source(&bytes[..], 1 << 40) {
                let mut again = Vec::new();
                write_source(&mut again, mode, &source).unwrap();
                assert_eq!(again, bytes[..again.len()]);
            }
        }
    }
}
