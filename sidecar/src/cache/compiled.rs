//! The cache in memory, before the one on disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nexus_protocol::WireError;
use nexus_protocol::message::{self, Checked, SuspendMode};
use sha2::{Digest, Sha256};

use super::flight::{Failed, Flight, Landing};
use super::lower::LowerTier;
use super::memory::{Client, Memory};
use crate::halt::Halt;
use crate::token::{StopCause, StopToken};

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
    /// Why it is that one, in words.
    pub why: Box<str>,
    /// What its author should know of its text.
    pub warnings: Box<[Warning]>,
    /// Why it could not be read, if it could not.
    pub unparsed: Option<Note>,
    /// What compiling it took.
    pub took: Duration,
}

/// A capability that a handler's text needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub token: Box<str>,
    pub line: u32,
    pub column: u32,
    /// Without the grant the handler fails whenever it runs, as far as its text tells.
    pub certain: bool,
}

/// Something about a handler's text, and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub message: Box<str>,
    pub line: u32,
    pub column: u32,
}

impl Note {
    /// As it is told.
    pub fn told(&self) -> message::Note<'_> {
        message::Note { message: &self.message, line: self.line, column: self.column }
    }
}

/// A note that may explain an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub note: Note,
    /// Line and column behind it, if an error whose place is in it comes of it.
    pub explains_until: Option<(u32, u32)>,
}

impl Warning {
    fn explains(&self, line: u32, column: u32) -> bool {
        let begins = (self.note.line, self.note.column);
        self.explains_until.is_some_and(|end| (begins..end).contains(&(line, column)))
    }
}

impl Handler {
    pub(super) fn weight(&self) -> u64 {
        let needs: usize = self.capabilities.iter().map(|n| n.token.len() + 48).sum();
        let warnings: usize = self.warnings.iter().map(|w| w.note.message.len() + 48).sum();
        (self.source.len() + self.bytecode.len() + needs + warnings + 256) as u64
    }

    /// The tokens that it certainly needs.
    pub fn certain(&self) -> impl Iterator<Item = &str> {
        self.capabilities.iter().filter(|need| need.certain).map(|need| &*need.token)
    }

    /// The error, with what the text tells about it: a promise that was used as a value shows in what that value lacks.
    pub fn explained(&self, mut error: WireError) -> WireError {
        if let Some(at) = &error.location
            && let Some(warning) = self.warnings.iter().find(|warning| warning.explains(at.line, at.column))
        {
            error.message = format!("{}; {}", error.message, warning.note.message);
        }
        error
    }

    /// What check answers.
    pub fn checked(&self) -> Checked<'_> {
        Checked {
            capabilities: self.capabilities.iter().map(|need| &*need.token).collect(),
            suspend_mode: self.suspend_mode,
            suspend_reason: Some(&self.why),
            certain: self.certain().collect(),
            warnings: self.warnings.iter().map(|warning| warning.note.told()).collect(),
            unparsed: self.unparsed.as_ref().map(Note::told),
        }
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
    memory: Memory,
    hits: u64,
    misses: u64,
    /// What somebody searches on disk for, or compiles.
    flights: HashMap<HandlerDigest, Arc<Flight>>,
}

/// Both tiers.
pub struct CompileCache {
    inner: Mutex<Inner>,
    disk: Option<Box<dyn LowerTier>>,
}

/// Who wants a handler, and what they may use to compile it.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'t> {
    pub client: Client,
    pub memory_limit_bytes: u64,
    pub token: &'t StopToken,
}

/// A handler that was there or was made.
#[derive(Clone, Debug)]
pub struct Got {
    pub handler: Arc<Handler>,
    pub origin: Origin,
}

/// Where a handler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made for whoever asked.
    Compiled,
    /// It was there, but only because of others.
    Others,
    /// It was there, and whoever asked has used it before.
    Known,
}

enum Lookup<'a> {
    Found(Got),
    /// It is nowhere, and others that want it wait for whoever holds this.
    Absent(Attempt<'a>),
    Awaited(Arc<Flight>),
}

impl CompileCache {
    /// Whether what is compiled outlives the process.
    pub fn is_on_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// `max_bytes` bounds the memory tier; the other knows its own bound.
    pub fn new(max_bytes: u64, disk: Option<Box<dyn LowerTier>>) -> Self {
        let inner = Inner { memory: Memory::new(max_bytes), hits: 0, misses: 0, flights: HashMap::new() };
        Self { inner: Mutex::new(inner), disk }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler that is in either tier. Counts a hit, or nothing.
    pub fn get(&self, digest: &HandlerDigest, asker: Asker<'_>) -> Result<Option<Got>, StopCause> {
        loop {
            let flight = match self.look_up(*digest, asker) {
                Lookup::Found(got) => return Ok(Some(got)),
                Lookup::Absent(_) => return Ok(None),
                Lookup::Awaited(flight) => flight,
            };
            match flight.wait(asker.token)? {
                Landing::Made(handler) => return Ok(Some(self.made_by_others(handler, asker))),
                Landing::Failed(_) => return Ok(None),
                Landing::Nothing => {}
            }
        }
    }

    /// The handler; where there is none `compile` makes it, once however many ask.
    pub fn get_or_compile(
        &self,
        digest: HandlerDigest,
        asker: Asker<'_>,
        compile: impl FnOnce() -> Result<Handler, Failed>,
    ) -> Result<Got, Halt> {
        let attempt = loop {
            let flight = match self.look_up(digest, asker) {
                Lookup::Found(got) => return Ok(got),
                Lookup::Absent(attempt) => break attempt,
                Lookup::Awaited(flight) => flight,
            };
            match flight.wait(asker.token)? {
                Landing::Made(handler) => return Ok(self.made_by_others(handler, asker)),
                Landing::Failed(failed) if failed.concerns(asker.memory_limit_bytes) => {
                    return Err(Halt::Refused(failed.error));
                }
                // the next one tries, with the rest of its time
                Landing::Failed(_) | Landing::Nothing => {}
            }
        };
        self.lock().misses += 1;
        let handler = match compile() {
            Ok(handler) => Arc::new(handler),
            Err(failed) => {
                attempt.flight.settle(Landing::Failed(failed.clone()));
                return Err(Halt::Refused(failed.error));
            }
        };
        self.lock().memory.insert(handler.clone(), asker.client);
        attempt.flight.settle(Landing::Made(handler.clone()));
        drop(attempt);
        if let Some(disk) = &self.disk {
            disk.write(&handler);
        }
        Ok(Got { handler, origin: Origin::Compiled })
    }

    /// What a flight brought that the asker has waited for. It may be too heavy for the memory tier.
    fn made_by_others(&self, handler: Arc<Handler>, asker: Asker<'_>) -> Got {
        let mut inner = self.lock();
        inner.hits += 1;
        let kept = inner.memory.get(&handler.digest, asker.client);
        let known = kept.map_or(asker.client == Client::ALONE, |(_, known)| known);
        Got { handler, origin: if known { Origin::Known } else { Origin::Others } }
    }

    fn look_up(&self, digest: HandlerDigest, asker: Asker<'_>) -> Lookup<'_> {
        let mut inner = self.lock();
        if let Some((handler, known)) = inner.memory.get(&digest, asker.client) {
            inner.hits += 1;
            return Lookup::Found(Got { handler, origin: if known { Origin::Known } else { Origin::Others } });
        }
        if let Some(flight) = inner.flights.get(&digest) {
            return Lookup::Awaited(flight.clone());
        }
        let flight = Arc::<Flight>::default();
        inner.flights.insert(digest, flight.clone());
        drop(inner);
        // also if something panics, the others must not wait for ever
        let attempt = Attempt { cache: self, digest, flight };
        let Some(handler) = self.disk.as_ref().and_then(|disk| disk.read(&digest)).map(Arc::new) else {
            return Lookup::Absent(attempt);
        };
        let mut inner = self.lock();
        inner.memory.insert(handler.clone(), asker.client);
        inner.hits += 1;
        drop(inner);
        attempt.flight.settle(Landing::Made(handler.clone()));
        let origin = if asker.client == Client::ALONE { Origin::Known } else { Origin::Others };
        Lookup::Found(Got { handler, origin })
    }

    /// Has what waits for the disk written, as far as that goes in a short time. Nothing is written any more afterwards.
    pub fn flush(&self) {
        self.disk.iter().for_each(|disk| disk.flush());
    }

    /// A client has come: see `memory`.
    pub fn join(&self, client: Client) {
        self.lock().memory.join(client);
    }

    pub fn leave(&self, client: Client) {
        self.lock().memory.leave(client);
    }

    pub fn counts(&self) -> CacheCounts {
        let disk = self.disk.as_ref().map(|disk| disk.counts()).unwrap_or_default();
        let inner = self.lock();
        CacheCounts {
            hits: inner.hits,
            misses: inner.misses,
            rejected: disk.rejected,
            entries: inner.memory.len() as u64,
            bytes: inner.memory.bytes(),
            disk_bytes: disk.used_bytes,
        }
    }
}

/// The right to search for or compile one handler, up to its drop.
struct Attempt<'a> {
    cache: &'a CompileCache,
    digest: HandlerDigest,
    flight: Arc<Flight>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.cache.lock().flights.remove(&self.digest);
        // where nothing was said, those that wait look for themselves
        self.flight.settle(Landing::Nothing);
    }
}

#[cfg(test)]
#[path = "compiled_tests.rs"]
pub(super) mod tests;
