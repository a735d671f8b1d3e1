//! One resident state: its keys and values, and the change sets that have made it what it is.
//!
//! A snapshot is the root of a tree that nobody changes: taking one costs the same for any size. A change set copies the
//! path to each key that it touches (about 1 us among 100,000 keys) and no value but its own; what it copies is kept by those who
//! read an older version, see `versions`.
//!
//! The tree is sorted, by which keys are found; each value knows how many keys were made before its own, so that they can be told in
//! the order in which they came. A key that is set anew stays where it is, one that was deleted meanwhile comes last.
//!
//! Invariants: nothing that grows with a state or a change set goes on once the request's token says that it is over, and then
//! nothing of it has happened; the state is held for a few changes at once, while a large change set is made aside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use nexus_protocol::limits::{MAX_STATE_KEY_BYTES, MAX_STATE_KEYS, STATE_BYTES, STATE_ENTRY_BYTES};
use nexus_protocol::{ErrorCode, WireError, payload};

use super::versions::{Key, Reader, Versions, copied_by};
use crate::budget::{Budget, Charge};
use crate::halt::{Halt, PayloadPace};
use crate::sort::sort;
use crate::token::{StopCause, StopToken};

/// Keys between two looks at the token: at most a millisecond.
const ENTRIES: u32 = 256;
/// So many changes are made in the state itself, while others wait for microseconds. More are made in a copy of its tree.
const AT_ONCE: usize = 256;
/// How often such a copy is made, when others were faster, before the state is held meanwhile.
const ATTEMPTS: usize = 3;

/// Version of a state that was just created.
const FIRST_VERSION: u64 = 1;

#[derive(Debug)]
struct Value {
    bytes: Box<[u8]>,
    /// By which keys are ordered. Written before anybody else sees the value.
    born: AtomicU64,
    _charge: Charge,
}

type Entries = OrdMap<Key, Arc<Value>>;

/// A state at one version. Never changes.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    entries: Entries,
    /// After the entries: what only this reader kept is gone then.
    _reader: Reader,
}

/// Keys to set and to delete, paid for.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Key, Option<Arc<Value>>)>);

/// See the module. Shared by its connection and by the executions that run on it.
#[derive(Debug)]
pub struct ResidentState {
    current: Mutex<Current>,
    budget: Arc<Budget>,
    _charge: Charge,
}

#[derive(Debug)]
struct Current {
    version: u64,
    entries: Entries,
    /// Keys that were made so far.
    births: u64,
    versions: Versions,
    /// What is applied from now on goes nowhere.
    disposed: bool,
}

impl Current {
    /// The version that stays if these changes make none.
    fn unchanged_by(&self, changes: &Changes, expected: Option<u64>) -> Result<Option<u64>, WireError> {
        let version = self.version;
        if let Some(expected) = expected.filter(|expected| *expected != version) {
            return Err(WireError::stale_version(version, expected));
        }
        Ok((changes.0.is_empty() || self.disposed).then_some(version))
    }

    /// The version that these entries make, and those that were here.
    fn replace(&mut self, made: Made) -> (u64, Entries) {
        let Made { entries, births, copied } = made;
        self.births = births;
        let old = std::mem::replace(&mut self.entries, entries);
        self.version = self.version.saturating_add(1);
        self.versions.changed(copied);
        (self.version, old)
    }
}

impl Snapshot {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|value| &*value.bytes)
    }

    pub fn key_count(&self) -> usize {
        self.entries.len()
    }

    /// In the order in which they were made. None: it may not go on.
    pub fn keys(&self, goes_on: &mut dyn FnMut() -> bool) -> Option<Vec<&str>> {
        let mut keys = Vec::with_capacity(self.entries.len());
        for (n, (key, value)) in self.entries.iter().enumerate() {
            if n.is_multiple_of(ENTRIES as usize) && !goes_on() {
                return None;
            }
            keys.push((value.born.load(Ordering::Relaxed), &**key));
        }
        sort(&mut keys, goes_on).then(|| keys.into_iter().map(|(_, key)| key).collect())
    }

    /// As a payload, or an error when that is larger than `max_bytes`. `only`: these keys, those that are there. `admit` hears how
    /// large it will be at the most, before there is any of it.
    pub fn encode(
        &self,
        only: Option<&[&str]>,
        max_bytes: usize,
        admit: &mut dyn FnMut(usize) -> Result<(), WireError>,
        token: &StopToken,
    ) -> Result<Vec<u8>, Halt> {
        match only {
            None => encode(|| self.entries.iter().map(|(key, value)| (&**key, &*value.bytes)), max_bytes, admit, token),
            Some(keys) => {
                let mut keys = keys.to_vec();
                keys.sort_unstable();
                keys.dedup();
                encode(|| keys.iter().filter_map(|key| Some((*key, self.get(key)?))), max_bytes, admit, token)
            }
        }
    }
}

/// A map of these entries. They are looked at twice: first for their size, so that nothing is made that is too large.
fn encode<'e, I: Iterator<Item = (&'e str, &'e [u8])>>(
    entries: impl Fn() -> I,
    max_bytes: usize,
    admit: &mut dyn FnMut(usize) -> Result<(), WireError>,
    token: &StopToken,
) -> Result<Vec<u8>, Halt> {
    let mut steps = token.every(ENTRIES);
    let (mut count, mut most) = (0, 5usize);
    for (key, value) in entries() {
        steps.step()?;
        count += 1;
        most = most.saturating_add(5 + key.len() + value.len());
    }
    if most > max_bytes {
        return Err(WireError::resource_limit("maxFrameBytes", max_bytes as u64, most as u64).into());
    }
    admit(most)?;
    let mut out = Vec::with_capacity(most);
    let _ = rmp::encode::write_map_len(&mut out, count);
    for (key, value) in entries() {
        steps.step()?;
        let _ = rmp::encode::write_str(&mut out, key);
        out.extend_from_slice(value);
    }
    Ok(out)
}

/// Refuses a state of more keys than there may be.
pub fn check_key_count(count: usize) -> Result<(), WireError> {
    if count <= MAX_STATE_KEYS {
        return Ok(());
    }
    Err(WireError::resource_limit("maxStateKeys", MAX_STATE_KEYS as u64, count as u64))
}

impl Changes {
    /// From a client's map of keys to set and its list of keys to delete. A key that is in both is set.
    pub fn of_client(set: &[u8], delete: &[&str], budget: &Arc<Budget>, token: &StopToken) -> Result<Self, Halt> {
        let refused = |e: payload::PayloadError| WireError::new(e.code(), format!("state: {e}"));
        // with UTF-8: a snapshot sends it back
        let mut pace = PayloadPace::new(token);
        payload::validate_paced(set, &mut pace).map_err(|e| pace.halt(e, refused))?;
        let entries = payload::map_entries(set).map_err(refused)?;
        check_key_count(entries.claimed() as usize)?;
        let mut steps = token.every(ENTRIES);
        let mut changes = Self::default();
        for key in delete {
            steps.step()?;
            changes.push(key, None, budget)?;
        }
        for entry in entries {
            steps.step()?;
            let (key, value) = entry.map_err(refused)?;
            if key.len() > MAX_STATE_KEY_BYTES {
                let message = format!("state: a key has {} bytes, more than {MAX_STATE_KEY_BYTES}", key.len());
                return Err(WireError::new(ErrorCode::InvalidArgument, message).into());
            }
            changes.push(key, Some(value), budget)?;
        }
        Ok(changes)
    }

    /// The entries with these changes, as long as the token allows. `births`: keys that were made before.
    fn made_in(&self, mut entries: Entries, mut births: u64, token: &StopToken) -> Result<Made, Halt> {
        let mut steps = token.every(ENTRIES);
        let (made, copied) = copied_by(|| {
            for (key, value) in &self.0 {
                steps.step()?;
                put(&mut entries, key.share(), value.clone(), &mut births);
            }
            Ok(entries)
        });
        let entries = made.map_err(|cause: StopCause| Halt::from(cause))?;
        check_key_count(entries.len())?;
        Ok(Made { entries, births, copied: copied.saturating_sub(self.0.len() as u64) })
    }

    /// Adds a change. `value`: None deletes.
    pub fn push(&mut self, key: &str, value: Option<&[u8]>, budget: &Arc<Budget>) -> Result<(), WireError> {
        let value = match value {
            None => None,
            Some(bytes) => {
                let charge = budget.charge(STATE_ENTRY_BYTES.saturating_add((key.len() + bytes.len()) as u64))?;
                Some(Arc::new(Value { bytes: bytes.into(), born: AtomicU64::new(0), _charge: charge }))
            }
        };
        self.0.push((Key::new(key), value));
        Ok(())
    }
}

/// Entries with a change set in them.
struct Made {
    entries: Entries,
    births: u64,
    /// Keys that were copied for it, beside its own.
    copied: u64,
}

/// One change; what was there before.
fn put(entries: &mut Entries, key: Key, value: Option<Arc<Value>>, births: &mut u64) -> Option<Arc<Value>> {
    let Some(value) = value else { return entries.remove(&key) };
    let born = match entries.get(&key) {
        Some(there) => there.born.load(Ordering::Relaxed),
        None => {
            *births += 1;
            *births
        }
    };
    value.born.store(born, Ordering::Relaxed);
    entries.insert(key, value)
}

impl ResidentState {
    pub fn new(state: &[u8], budget: &Arc<Budget>, token: &StopToken) -> Result<Arc<Self>, Halt> {
        let charge = budget.charge(STATE_BYTES)?;
        let changes = Changes::of_client(state, &[], budget, token)?;
        let Made { entries, births, .. } = changes.made_in(Entries::new(), 0, token)?;
        let versions = Versions::default();
        let current = Mutex::new(Current { version: FIRST_VERSION, entries, births, versions, disposed: false });
        Ok(Arc::new(Self { current, budget: budget.clone(), _charge: charge }))
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its bytes are counted by.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        let mut current = self.lock();
        let (version, entries) = (current.version, current.entries.clone());
        current.versions.read(version, entries.len(), &self.budget);
        Snapshot { version, entries, _reader: Reader::new(self.clone(), version) }
    }

    pub(super) fn with_versions(&self, f: impl FnOnce(&mut Versions)) {
        f(&mut self.lock().versions);
    }

    /// Applies a change set as a whole and returns the version that it makes. `expected`: the version that it has to find.
    /// An empty change set makes no version. Nothing happens to a state that was disposed.
    pub fn apply(&self, changes: Changes, expected: Option<u64>, token: &StopToken) -> Result<u64, Halt> {
        for _ in 0..ATTEMPTS {
            let mut current = self.lock();
            if let Some(version) = current.unchanged_by(&changes, expected)? {
                return Ok(version);
            }
            if changes.0.len() <= AT_ONCE && current.entries.len() + changes.0.len() <= MAX_STATE_KEYS {
                let own = changes.0.len();
                let mut replaced = Vec::with_capacity(own);
                let Current { version, entries, births, versions, .. } = &mut *current;
                let ((), copied) = copied_by(|| {
                    for (key, value) in changes.0 {
                        replaced.push(put(entries, key, value, births));
                    }
                });
                versions.changed(copied.saturating_sub(own as u64));
                *version = version.saturating_add(1);
                let version = *version;
                // what was replaced is freed when nobody waits for it any more
                drop(current);
                return Ok(version);
            }
            // a large one is made aside: others that want the state do not wait for it
            let (before, entries, births) = (current.version, current.entries.clone(), current.births);
            drop(current);
            let made = changes.made_in(entries, births, token)?;
            let mut current = self.lock();
            if current.version == before && !current.disposed {
                let (version, _old) = current.replace(made);
                drop(current);
                return Ok(version);
            }
        }
        // others were faster each time: now they wait, as long as this one has time
        let mut current = self.lock();
        if let Some(version) = current.unchanged_by(&changes, expected)? {
            return Ok(version);
        }
        let made = changes.made_in(current.entries.clone(), current.births, token)?;
        let (version, _old) = current.replace(made);
        drop(current);
        Ok(version)
    }

    /// Frees what no execution reads any more.
    pub fn dispose(&self) {
        let mut current = self.lock();
        current.disposed = true;
        let entries = std::mem::take(&mut current.entries);
        drop(current);
        drop(entries);
    }
}

#[cfg(test)]
mod tests;
