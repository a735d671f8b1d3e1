//! One resident state: its keys and values, and the change sets that have made it what it is.
//!
//! A snapshot is the root of a tree that nobody changes: taking one costs the same for any size. A change set copies the
//! path to each key that it touches (about 1 us among 100,000 keys) and no value but its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imbl::OrdMap;
use nexus_protocol::limits::{MAX_STATE_KEY_BYTES, STATE_BYTES, STATE_ENTRY_BYTES};
use nexus_protocol::{ErrorCode, WireError, payload};

use crate::budget::{Budget, Charge};

/// Version of a state that was just created.
const FIRST_VERSION: u64 = 1;

#[derive(Debug)]
struct Value {
    bytes: Box<[u8]>,
    _charge: Charge,
}

type Entries = OrdMap<Arc<str>, Arc<Value>>;

/// A state at one version. Never changes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    version: u64,
    entries: Entries,
}

/// Keys to set and to delete, paid for.
#[derive(Debug, Default)]
pub struct Changes(Vec<(Arc<str>, Option<Arc<Value>>)>);

/// See the module. Shared by its connection and by the executions that run on it.
#[derive(Debug)]
pub struct ResidentState {
    current: Mutex<Current>,
    budget: Arc<Budget>,
    _charge: Charge,
}

#[derive(Debug)]
struct Current {
    snapshot: Snapshot,
    /// What is applied from now on goes nowhere.
    disposed: bool,
}

impl Snapshot {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|value| &*value.bytes)
    }

    /// Sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(|key| &**key)
    }

    /// As a payload, or an error when that is larger than `max_bytes`. `only`: these keys, those that are there.
    pub fn encode(&self, only: Option<&[&str]>, max_bytes: usize) -> Result<Vec<u8>, WireError> {
        let picked: Vec<(&str, &[u8])> = match only {
            None => self.entries.iter().map(|(key, value)| (&**key, &*value.bytes)).collect(),
            Some(keys) => {
                let mut keys = keys.to_vec();
                keys.sort_unstable();
                keys.dedup();
                keys.into_iter().filter_map(|key| Some((key, self.get(key)?))).collect()
            }
        };
        let most = picked.iter().fold(5, |sum: usize, (key, value)| sum.saturating_add(5 + key.len() + value.len()));
        if most > max_bytes {
            return Err(WireError::resource_limit("maxFrameBytes", max_bytes as u64, most as u64));
        }
        let mut out = Vec::with_capacity(most);
        let _ = rmp::encode::write_map_len(&mut out, picked.len() as u32);
        for (key, value) in picked {
            let _ = rmp::encode::write_str(&mut out, key);
            out.extend_from_slice(value);
        }
        Ok(out)
    }
}

impl Changes {
    /// From a client's map of keys to set and its list of keys to delete. A key that is in both is set.
    pub fn of_client(set: &[u8], delete: &[&str], budget: &Arc<Budget>) -> Result<Self, WireError> {
        let refused = |e: payload::PayloadError| WireError::new(e.code(), format!("state: {e}"));
        // with UTF-8: a snapshot sends it back
        payload::validate(set).map_err(refused)?;
        let mut changes = Self::default();
        for key in delete {
            changes.push(key, None, budget)?;
        }
        for entry in payload::map_entries(set).map_err(refused)? {
            let (key, value) = entry.map_err(refused)?;
            if key.len() > MAX_STATE_KEY_BYTES {
                let message = format!("state: a key has {} bytes, more than {MAX_STATE_KEY_BYTES}", key.len());
                return Err(WireError::new(ErrorCode::InvalidArgument, message));
            }
            changes.push(key, Some(value), budget)?;
        }
        Ok(changes)
    }

    /// Adds a change. `value`: None deletes.
    pub fn push(&mut self, key: &str, value: Option<&[u8]>, budget: &Arc<Budget>) -> Result<(), WireError> {
        let value = match value {
            None => None,
            Some(bytes) => {
                let charge = budget.charge(STATE_ENTRY_BYTES.saturating_add((key.len() + bytes.len()) as u64))?;
                Some(Arc::new(Value { bytes: bytes.into(), _charge: charge }))
            }
        };
        self.0.push((key.into(), value));
        Ok(())
    }
}

impl ResidentState {
    pub fn new(state: &[u8], budget: &Arc<Budget>) -> Result<Arc<Self>, WireError> {
        let charge = budget.charge(STATE_BYTES)?;
        let changes = Changes::of_client(state, &[], budget)?;
        let entries = changes.0.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        let snapshot = Snapshot { version: FIRST_VERSION, entries };
        let current = Mutex::new(Current { snapshot, disposed: false });
        Ok(Arc::new(Self { current, budget: budget.clone(), _charge: charge }))
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its bytes are counted by.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub fn snapshot(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Applies a change set as a whole and returns the version that it makes. `expected`: the version that it has to find.
    /// An empty change set makes no version. Nothing happens to a state that was disposed.
    pub fn apply(&self, changes: Changes, expected: Option<u64>) -> Result<u64, WireError> {
        // dropped when the lock is not held any more: freeing a large value takes its time
        let mut replaced = Vec::with_capacity(changes.0.len());
        let mut current = self.lock();
        let Current { snapshot: Snapshot { version, entries }, disposed } = &mut *current;
        if let Some(expected) = expected.filter(|expected| expected != version) {
            return Err(WireError::stale_version(*version, expected));
        }
        if changes.0.is_empty() || *disposed {
            return Ok(*version);
        }
        for (key, value) in changes.0 {
            replaced.push(match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            });
        }
        *version = version.saturating_add(1);
        Ok(*version)
    }

    /// Frees what no execution reads any more.
    pub fn dispose(&self) {
        let mut current = self.lock();
        current.disposed = true;
        let entries = std::mem::take(&mut current.snapshot.entries);
        drop(current);
        drop(entries);
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ContextValue;

    use super::*;

    fn pack(json: serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec(&json).unwrap()
    }

    fn state(json: serde_json::Value) -> (Arc<ResidentState>, Arc<Budget>) {
        let budget = Budget::new("bytes", 1 << 20);
        (ResidentState::new(&pack(json), &budget).unwrap(), budget)
    }

    fn unpack(snapshot: &Snapshot) -> serde_json::Value {
        rmp_serde::from_slice(&snapshot.encode(None, 1 << 20).unwrap()).unwrap()
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let (state, budget) = state(serde_json::json!({"a": 1, "b": [2], "c": null}));
        let before = state.snapshot();
        let changes = Changes::of_client(&pack(serde_json::json!({"a": 10, "d": 4})), &["b", "nothing"], &budget);
        assert_eq!(state.apply(changes.unwrap(), None).unwrap(), 2);
        assert_eq!(unpack(&before), serde_json::json!({"a": 1, "b": [2], "c": null}));
        assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 10, "c": null, "d": 4}));
        assert_eq!((before.version(), state.snapshot().version()), (1, 2));
    }

    #[test]
    fn a_key_that_is_deleted_and_set_is_set() {
        let (state, budget) = state(serde_json::json!({"a": 1}));
        let changes = Changes::of_client(&pack(serde_json::json!({"a": 2})), &["a"], &budget).unwrap();
        state.apply(changes, None).unwrap();
        assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 2}));
    }

    #[test]
    fn another_version_than_expected_changes_nothing() {
        let (state, budget) = state(serde_json::json!({"a": 1}));
        let change = || Changes::of_client(&pack(serde_json::json!({"a": 2})), &[], &budget).unwrap();
        let error = state.apply(change(), Some(2)).unwrap_err();
        assert_eq!(error.context["reason"], ContextValue::Text("stale-version".into()));
        assert!(error.retryable);
        assert_eq!(unpack(&state.snapshot()), serde_json::json!({"a": 1}));
        assert_eq!(state.apply(change(), Some(1)).unwrap(), 2);
        assert_eq!(state.apply(Changes::default(), Some(2)).unwrap(), 2);
    }

    #[test]
    fn bytes_count_until_the_last_reader_is_gone() {
        let (state, budget) = state(serde_json::json!({"a": "x".repeat(1000)}));
        let full = budget.used();
        assert!(full > 1000 + STATE_BYTES);
        let reader = state.snapshot();
        state.apply(Changes::of_client(&pack(serde_json::json!({"a": 0})), &[], &budget).unwrap(), None).unwrap();
        assert!(budget.used() > full, "the reader still has the old value");
        drop(reader);
        assert!(budget.used() < full - 900);
        drop(state);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_disposed_state_takes_nothing_in() {
        let (state, budget) = state(serde_json::json!({"a": 1}));
        let reader = state.snapshot();
        state.dispose();
        assert_eq!(unpack(&reader), serde_json::json!({"a": 1}));
        state.apply(Changes::of_client(&pack(serde_json::json!({"b": 1})), &[], &budget).unwrap(), None).unwrap();
        drop(reader);
        assert_eq!(budget.used(), STATE_BYTES);
    }

    #[test]
    fn what_is_too_much_changes_nothing() {
        let budget = Budget::new("bytes", 2000);
        let state = ResidentState::new(&pack(serde_json::json!({"a": 1})), &budget).unwrap();
        let used = budget.used();
        let error = Changes::of_client(&pack(serde_json::json!({"b": 1, "c": "x".repeat(2000)})), &[], &budget);
        assert_eq!(error.unwrap_err().code, ErrorCode::ResourceLimit);
        assert_eq!(budget.used(), used);
        assert!(ResidentState::new(&pack(serde_json::json!({"a": "x".repeat(2000)})), &budget).is_err());
        assert_eq!(budget.used(), used);
        drop(state);
    }

    #[test]
    fn of_equal_keys_the_last_one_counts() {
        let budget = Budget::new("bytes", 2000);
        let state = ResidentState::new(&[0x82, 0xa1, b'k', 1, 0xa1, b'k', 2], &budget).unwrap();
        assert_eq!(state.snapshot().get("k"), Some(&[2][..]));
        assert_eq!(budget.used(), STATE_BYTES + STATE_ENTRY_BYTES + 2);
    }

    #[test]
    fn some_keys_or_all_and_never_more_than_fits() {
        let (state, _) = state(serde_json::json!({"a": 1, "b": 2, "c": 3}));
        let snapshot = state.snapshot();
        let some = snapshot.encode(Some(&["c", "nothing", "a", "c"]), 1000).unwrap();
        assert_eq!(some, [0x82, 0xa1, b'a', 1, 0xa1, b'c', 3]);
        assert_eq!(snapshot.encode(Some(&[]), 1000).unwrap(), [0x80]);
        assert_eq!(snapshot.encode(None, 10).unwrap_err().code, ErrorCode::ResourceLimit);
    }
}
