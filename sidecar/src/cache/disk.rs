//! The disk tier of the compile cache: one file per handler, `<digest>.qjsc`, in a private directory.
//!
//! ```text
//! a worker that missed in memory --> read: open, look, verify --> handler, or nothing
//! a worker that compiled --> bounded queue --> the writer's thread: seal, write, keep the size within its bound
//! ```
//!
//! Invariants: nothing is handed out that was not verified; what is not ours is removed and counted; nothing here delays
//! or fails an execution, for this tier only saves time. A full queue drops what comes; a disk that fails is logged once.
//! Writing has a thread, for it takes 30 to 140 us at the median but milliseconds when the disk is busy; handing over takes 4 us.
//! Several sidecars can share a directory: each counts what it writes itself, and looks at the whole when that is too much.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nexus_protocol::limits::CACHE_FLUSH_MS;

use super::dir::{Dir, DirError, OpenError};
use super::entry::{EntryError, HEADER_BYTES, Sealer};
use super::handle::HandleKey;
use super::key::{CacheKey, signer};
use super::{Handler, HandlerDigest, LowerCounts, LowerTier};
use crate::faults::{self, Point};

const ENDING: &str = ".qjsc";
/// No entry is larger, whatever the bound of the whole.
const MAX_ENTRY_BYTES: u64 = 64 << 20;
/// Handlers that wait to be written: what a client compiles in one go at its start, and not more than a sidecar that ends can
/// still write in a fifth of a second.
pub(super) const MAX_QUEUED: usize = 1024;
/// Their bytes. A handler that is still in the memory tier costs nothing more here.
pub(super) const MAX_QUEUED_BYTES: u64 = 32 << 20;
/// For so long, or for so many entries, a sidecar that ends still looks through its directory: else one that is short-lived
/// would write and never remove. The whole of the default bound takes 40 ms, when the file system has it in memory.
const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_ENTRIES: usize = 1000;
/// Between two looks whether the writer is done.
const FLUSH_SLICE: Duration = Duration::from_millis(1);
/// What a file system allots at least; small files would otherwise count for too little.
const BLOCK_BYTES: u64 = 4096;

/// See the module. Dropped, it first writes what is queued.
pub struct DiskTier {
    shared: Arc<Shared>,
    handles: HandleKey,
    /// None: nothing is written any more.
    queue: Mutex<Option<SyncSender<Arc<Handler>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: Dir,
    sealer: Sealer,
    max_bytes: u64,
    queued_bytes: AtomicU64,
    rejected: AtomicU64,
    used_bytes: AtomicU64,
    /// A failure of the disk has been logged.
    told: AtomicBool,
    /// The tier is being dropped.
    ending: AtomicBool,
    /// Who wants to know of the counts.
    listener: OnceLock<Listener>,
}

type Listener = Box<dyn Fn(LowerCounts) + Send + Sync>;

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("it is too large")]
    Size,
}

impl DiskTier {
    /// None, with a warning, where the directory cannot be used.
    pub fn open(path: &Path, engine: [u8; 32], max_bytes: u64) -> Option<Self> {
        // says the operator: no cache
        if max_bytes == 0 {
            return None;
        }
        let started = Self::start(path, engine, max_bytes);
        started
            .inspect_err(|e| log::warn!("compiled handlers are kept in memory only, not in {}: {e}", path.display()))
            .ok()
    }

    /// As `open`, where a directory is given, and the key of handles: that of the directory, so that handles outlive the process, or a
    /// new one.
    pub fn open_with_key(
        path: Option<&Path>,
        engine: [u8; 32],
        max_bytes: u64,
    ) -> io::Result<(Option<Self>, HandleKey)> {
        let disk = path.and_then(|path| Self::open(path, engine, max_bytes));
        let handles = disk.as_ref().map_or_else(HandleKey::random, |disk| Ok(disk.handle_key()))?;
        Ok((disk, handles))
    }

    fn start(path: &Path, engine: [u8; 32], max_bytes: u64) -> Result<Self, DirError> {
        let dir = Dir::open(path)?;
        let key = CacheKey::of(&dir)?;
        let shared = Arc::new(Shared {
            dir,
            sealer: Sealer::new(signer(&key.derive("nexus-sidecar cache entries")), engine),
            max_bytes,
            queued_bytes: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            told: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            listener: OnceLock::new(),
        });
        let (queue, queued) = sync_channel(MAX_QUEUED);
        faults::io(Point::Thread)?;
        let writer = thread::Builder::new().name("cache".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.write_queued(&queued)
        })?;
        let handles = HandleKey::new(key.derive("nexus-sidecar handles"));
        Ok(Self { shared, handles, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// By which handles stay valid for all that use the directory, one after another or at once.
    pub fn handle_key(&self) -> HandleKey {
        self.handles.clone()
    }

    /// Bytes on disk as the writer knows them: it lists the directory at start and when the bound is reached, and adds what it
    /// writes. Other sidecars on the same directory show late.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Relaxed)
    }

    /// Entries that were bad, foreign or old.
    pub fn rejected(&self) -> u64 {
        self.shared.rejected.load(Relaxed)
    }

    /// Has `listener` told of the counts, now and whenever they change. Once.
    pub fn tell(&self, listener: Listener) {
        let _ = self.shared.listener.set(listener);
        self.shared.note();
    }

    /// No entry is larger.
    pub fn max_entry_bytes(&self) -> u64 {
        self.shared.max_entry_bytes()
    }

    /// The writer, which ends when its queue is empty.
    fn end(&self) -> Option<JoinHandle<()>> {
        self.shared.ending.store(true, Relaxed);
        *lock(&self.queue) = None;
        lock(&self.writer).take()
    }
}

impl LowerTier for DiskTier {
    fn read(&self, digest: &HandlerDigest) -> Option<Handler> {
        let name = file_name(digest);
        match self.shared.read(digest, &name) {
            Ok(handler) => Some(handler),
            Err(ReadError::Open(OpenError::Missing)) => None,
            Err(ReadError::Open(OpenError::Io(error))) => {
                self.shared.tell_once("read", &error);
                None
            }
            Err(why) => {
                self.shared.dir.remove(&name);
                self.shared.rejected.fetch_add(1, Relaxed);
                self.shared.note();
                log::warn!("the cache entry {name} is removed: {why}");
                None
            }
        }
    }

    fn write(&self, handler: &Arc<Handler>) {
        let weight = handler.weight();
        let queued = self.shared.queued_bytes.fetch_add(weight, Relaxed);
        let sent = queued.saturating_add(weight) <= MAX_QUEUED_BYTES
            && lock(&self.queue).as_ref().is_some_and(|queue| queue.try_send(handler.clone()).is_ok());
        if !sent {
            self.shared.queued_bytes.fetch_sub(weight, Relaxed);
        }
    }

    fn flush(&self) {
        let Some(writer) = self.end() else { return };
        let until = Instant::now() + Duration::from_millis(CACHE_FLUSH_MS);
        while !writer.is_finished() {
            if Instant::now() >= until {
                let dir = self.shared.dir.path().display();
                return log::warn!("the disk of the cache in {dir} is slow: some handlers are not kept");
            }
            thread::sleep(FLUSH_SLICE);
        }
    }

    fn counts(&self) -> LowerCounts {
        self.shared.counts()
    }
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        // a writer that panicked has said so
        let _ = self.end().map(JoinHandle::join);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn counts(&self) -> LowerCounts {
        LowerCounts { used_bytes: self.used_bytes.load(Relaxed), rejected: self.rejected.load(Relaxed) }
    }

    fn note(&self) {
        if let Some(listener) = self.listener.get() {
            listener(self.counts());
        }
    }

    fn max_entry_bytes(&self) -> u64 {
        self.max_bytes.min(MAX_ENTRY_BYTES)
    }

    fn read(&self, digest: &HandlerDigest, name: &str) -> Result<Handler, ReadError> {
        let mut file = self.dir.open_file(name)?;
        let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
        if len < HEADER_BYTES {
            return Err(EntryError::Length.into());
        }
        if len as u64 > self.max_entry_bytes() {
            return Err(ReadError::Size);
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header)?;
        self.sealer.check_header(digest, &header, len as u64)?;
        let mut entry = vec![0; len];
        let (first, rest) = entry.split_at_mut(HEADER_BYTES);
        first.copy_from_slice(&header);
        file.read_exact(rest)?;
        let handler = self.sealer.unseal(digest, &entry)?;
        file.touch();
        Ok(handler)
    }

    /// Until the queue has no sender any more.
    fn write_queued(&self, queue: &Receiver<Arc<Handler>>) {
        let mut used = self.trim();
        self.used_bytes.store(used, Relaxed);
        self.note();
        for handler in queue {
            self.queued_bytes.fetch_sub(handler.weight(), Relaxed);
            let entry = self.sealer.seal(&handler);
            if entry.len() as u64 > self.max_entry_bytes() {
                continue;
            }
            match self.dir.write(&file_name(&handler.digest), &entry) {
                Ok(()) => used += allotted(entry.len() as u64),
                Err(error) => self.tell_once("write", &error),
            }
            if used > self.max_bytes {
                used = self.trim();
            }
            self.used_bytes.store(used, Relaxed);
            self.note();
        }
    }

    /// Removes what was not used for longest until an eighth of the bound is free. Returns the bytes in use, as far as known.
    fn trim(&self) -> u64 {
        let mut entries: Vec<(SystemTime, u64, HandlerDigest)> = Vec::new();
        let mut used: u64 = 0;
        let started = Instant::now();
        let looked = self.dir.sweep(|name, found| {
            if let (Some(digest), Ok(modified)) = (digest_of(name), found.modified()) {
                let bytes = allotted(found.len());
                used = used.saturating_add(bytes);
                entries.push((modified, bytes, digest));
            }
            !self.ending.load(Relaxed) || entries.len() < PATIENCE_ENTRIES || started.elapsed() < PATIENCE
        });
        if let Err(error) = looked {
            self.tell_once("list", &error);
        }
        if used <= self.max_bytes {
            return used;
        }
        entries.sort_unstable_by_key(|(modified, ..)| *modified);
        // the newest stays: it alone may be more than seven eighths
        entries.pop();
        for (_, bytes, digest) in entries {
            if used <= self.max_bytes - self.max_bytes / 8 {
                break;
            }
            self.dir.remove(&file_name(&digest));
            used -= bytes;
        }
        used
    }

    fn tell_once(&self, what: &str, error: &io::Error) {
        if !self.told.swap(true, Relaxed) {
            log::warn!(
                "cannot {what} the cache in {}: {error}; handlers are compiled again where that fails (said once)",
                self.dir.path().display()
            );
        }
    }
}

fn allotted(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX)
}

fn file_name(digest: &HandlerDigest) -> String {
    use std::fmt::Write;
    let mut name = String::with_capacity(64 + ENDING.len());
    for byte in digest.0 {
        // writing to a string cannot fail
        let _ = write!(name, "{byte:02x}");
    }
    name + ENDING
}

/// The inverse of [`file_name`]; no other name is an entry's.
fn digest_of(name: &str) -> Option<HandlerDigest> {
    let hex = name.strip_suffix(ENDING)?.as_bytes();
    let digit = |at: usize| char::from(*hex.get(at)?).to_digit(16);
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::try_from(digit(2 * at)? * 16 + digit(2 * at + 1)?).ok()?;
    }
    let digest = HandlerDigest(digest);
    (file_name(&digest) == name).then_some(digest)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
