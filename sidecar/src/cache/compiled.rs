//! The cache in memory, before the one on disk.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use nexus_protocol::message::SuspendMode;
use sha2::{Digest, Sha256};

use super::disk::DiskTier;

/// What a key is derived from beside engine and source: what this build makes of a source may differ from what another does.
const DOMAIN: &str = concat!("nexus-sidecar handler ", env!("NEXUS_SOURCE_REVISION"), "\0");

/// SHA-256 over domain, engine, options and source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerDigest(pub [u8; 32]);

impl HandlerDigest {
    pub fn new(engine: &[u8; 32], source: &str) -> Self {
        Self::forced(engine, None, source)
    }

    /// As `new`, for a handler whose mode was asked for.
    pub fn forced(engine: &[u8; 32], mode: Option<SuspendMode>, source: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(engine);
        hash.update(match mode {
            None => b"-",
            Some(SuspendMode::Await) => b"a",
            Some(SuspendMode::Stack) => b"s",
        });
        hash.update(source.as_bytes());
        Self(hash.finalize().into())
    }
}

/// A compiled handler. Immutable and shared.
#[derive(Debug)]
pub struct Handler {
    pub digest: HandlerDigest,
    /// As its owner wrote it: errors point into it.
    pub source: Box<str>,
    pub bytecode: Box<[u8]>,
    /// Tokens that its text shows to be needed.
    pub capabilities: Vec<Need>,
    pub suspend_mode: SuspendMode,
}

/// A capability that a handler's text needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub token: Box<str>,
    pub line: u32,
    pub column: u32,
    /// The name is a literal: without the grant, reaching that place fails for certain.
    pub certain: bool,
}

impl Handler {
    pub(super) fn weight(&self) -> u64 {
        let needs: usize = self.capabilities.iter().map(|n| n.token.len() + 48).sum();
        (self.source.len() + self.bytecode.len() + needs + 256) as u64
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
    /// Entries on disk that were no good.
    pub rejected: u64,
    /// In memory, like their bytes.
    pub entries: u64,
    pub bytes: u64,
    /// On disk, as far as known without looking there.
    pub disk_bytes: u64,
}

struct Inner {
    entries: LruCache<HandlerDigest, Arc<Handler>>,
    bytes: u64,
    hits: u64,
    misses: u64,
    /// Keys that somebody searches on disk for, or compiles.
    taken: HashSet<HandlerDigest>,
}

/// Both tiers.
pub struct CompileCache {
    inner: Mutex<Inner>,
    /// Some search or compilation has ended.
    settled: Condvar,
    max_bytes: u64,
    disk: Option<DiskTier>,
}

enum Lookup<'a> {
    Found(Arc<Handler>),
    /// It is nowhere, and others that want it wait for whoever holds this.
    Absent(Turn<'a>),
}

impl CompileCache {
    /// Whether what is compiled outlives the process.
    pub fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// `max_bytes` bounds the memory tier; the other knows its own bound.
    pub fn new(max_bytes: u64, disk: Option<DiskTier>) -> Self {
        let inner = Inner { entries: LruCache::unbounded(), bytes: 0, hits: 0, misses: 0, taken: HashSet::new() };
        Self { inner: Mutex::new(inner), settled: Condvar::new(), max_bytes, disk }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler that is in either tier. Counts a hit, or nothing.
    pub fn get(&self, digest: &HandlerDigest) -> Option<Arc<Handler>> {
        match self.look_up(*digest) {
            Lookup::Found(handler) => Some(handler),
            Lookup::Absent(_) => None,
        }
    }

    /// The handler and whether it was there; otherwise `compile` makes it, once however many ask.
    pub fn get_or_compile<E>(
        &self,
        digest: HandlerDigest,
        compile: impl FnOnce() -> Result<Handler, E>,
    ) -> Result<(Arc<Handler>, bool), E> {
        let _turn = match self.look_up(digest) {
            Lookup::Found(handler) => return Ok((handler, true)),
            Lookup::Absent(turn) => turn,
        };
        self.lock().misses += 1;
        let handler = Arc::new(compile()?);
        self.insert(handler.clone());
        if let Some(disk) = &self.disk {
            disk.write(&handler);
        }
        Ok((handler, false))
    }

    fn look_up(&self, digest: HandlerDigest) -> Lookup<'_> {
        let mut inner = self.lock();
        loop {
            if let Some(found) = inner.entries.get(&digest).cloned() {
                inner.hits += 1;
                return Lookup::Found(found);
            }
            if inner.taken.insert(digest) {
                break;
            }
            inner = self.settled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        drop(inner);
        // also if something panics, the others must not wait for ever
        let turn = Turn { cache: self, digest };
        let Some(handler) = self.disk.as_ref().and_then(|disk| disk.read(&digest)).map(Arc::new) else {
            return Lookup::Absent(turn);
        };
        self.insert(handler.clone());
        self.lock().hits += 1;
        Lookup::Found(handler)
    }

    fn insert(&self, handler: Arc<Handler>) {
        let mut inner = self.lock();
        inner.bytes += handler.weight();
        if let Some(old) = inner.entries.put(handler.digest, handler) {
            inner.bytes -= old.weight();
        }
        while inner.bytes > self.max_bytes {
            let Some((_, oldest)) = inner.entries.pop_lru() else { break };
            inner.bytes -= oldest.weight();
        }
    }

    pub fn counts(&self) -> CacheCounts {
        let inner = self.lock();
        CacheCounts {
            hits: inner.hits,
            misses: inner.misses,
            rejected: self.disk.as_ref().map_or(0, DiskTier::rejected),
            entries: inner.entries.len() as u64,
            bytes: inner.bytes,
            disk_bytes: self.disk.as_ref().map_or(0, DiskTier::used_bytes),
        }
    }
}

/// The right to search for or compile one handler, up to its drop.
struct Turn<'a> {
    cache: &'a CompileCache,
    digest: HandlerDigest,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.cache.lock().taken.remove(&self.digest);
        self.cache.settled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn handler(source: &str, bytecode_bytes: usize) -> Handler {
        Handler {
            digest: HandlerDigest::new(&[0; 32], source),
            source: source.into(),
            bytecode: vec![0; bytecode_bytes].into(),
            capabilities: Vec::new(),
            suspend_mode: SuspendMode::Await,
        }
    }

    #[test]
    fn one_compilation_serves_all_that_wait() {
        let cache = CompileCache::new(1 << 20, None);
        let compiled = AtomicU32::new(0);
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    barrier.wait();
                    let digest = handler("a", 10).digest;
                    let made = cache.get_or_compile(digest, || {
                        compiled.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, ()>(handler("a", 10))
                    });
                    assert!(made.is_ok());
                });
            }
        });
        assert_eq!(compiled.load(Ordering::SeqCst), 1);
        let counts = cache.counts();
        assert_eq!((counts.hits, counts.misses, counts.entries), (3, 1, 1));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = CompileCache::new(1 << 20, None);
        let digest = handler("a", 1).digest;
        assert!(cache.get_or_compile(digest, || Err::<Handler, _>("no")).is_err());
        assert!(cache.get_or_compile(digest, || Ok::<_, &str>(handler("a", 1))).is_ok());
    }

    #[test]
    fn when_the_first_compilation_fails_the_next_that_waits_compiles() {
        let cache = CompileCache::new(1 << 20, None);
        let attempts = AtomicU32::new(0);
        let barrier = std::sync::Barrier::new(8);
        let failed = AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    barrier.wait();
                    let made = cache.get_or_compile(handler("a", 10).digest, || {
                        let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
                        if first { Err("no") } else { Ok(handler("a", 10)) }
                    });
                    failed.fetch_add(u32::from(made.is_err()), Ordering::SeqCst);
                });
            }
        });
        assert_eq!((attempts.load(Ordering::SeqCst), failed.load(Ordering::SeqCst)), (2, 1));
        let counts = cache.counts();
        assert_eq!((counts.hits, counts.misses, counts.entries), (6, 2, 1));
    }

    #[test]
    fn the_oldest_go_first_and_bytes_are_bounded() {
        let cache = CompileCache::new(3000, None);
        for name in ["a", "b", "c"] {
            cache.get_or_compile(handler(name, 1000).digest, || Ok::<_, ()>(handler(name, 1000))).unwrap();
        }
        assert!(cache.get(&handler("a", 0).digest).is_none());
        assert!(cache.get(&handler("c", 0).digest).is_some());
        assert!(cache.counts().bytes <= 3000);
    }

    #[test]
    fn another_engine_or_mode_is_another_key() {
        let digest = |engine: u8, mode| HandlerDigest::forced(&[engine; 32], mode, "x");
        assert_ne!(digest(0, None), digest(1, None));
        assert_ne!(digest(0, None), digest(0, Some(SuspendMode::Stack)));
        assert_ne!(digest(0, Some(SuspendMode::Await)), digest(0, Some(SuspendMode::Stack)));
    }
}
