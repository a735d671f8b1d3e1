//! The state of one execution as the host sees it: what the client gave, never decoded, under the handler's writes.
//!
//! A state that came with the request is a MessagePack map; it is walked once, and values are skipped. Where its keys stand is
//! noted on that walk if it is large, so that nothing large is done while the guest waits; else when a key is first needed.
//! A handler that reads one key of a large state pays for the walk and for that key. A resident state is read as it was when
//! the execution began, and pays for the key alone; what the handler writes is brought into it at the end of each segment.

use std::collections::HashMap;
use std::iter::Peekable;
use std::ops::Deref;
use std::sync::Arc;

use nexus_protocol::pieces::SHARED_FROM_BYTES;
use nexus_protocol::{Part, Shared, WireError};

use super::state_index::{Index, check};
use crate::halt::Halt;
use crate::resident::{Changes, ResidentState, Snapshot};
use crate::token::StopToken;

/// Of a write, beside its key and value: a slot of the table and two allocations.
const WRITTEN_ENTRY_BYTES: u64 = 96;

/// A state from this size on is indexed before the guest is entered. A smaller one is walked in less than a millisecond.
const INDEXED_FROM_BYTES: usize = 64 << 10;

/// Keys that are told between two questions whether to go on.
const KEYS: usize = 4096;

/// A state that belongs to the execution alone.
#[derive(Debug)]
struct Given {
    bytes: Vec<u8>,
    index: Option<Index>,
}

/// A state that outlives the execution.
#[derive(Debug)]
struct Kept {
    state: Arc<ResidentState>,
    snapshot: Snapshot,
    /// Version that the last change set of this execution made, or that it began with.
    version: u64,
    /// The version that it has to begin with.
    expected: Option<u64>,
    /// Nobody else may change the state while this execution goes on.
    exclusive: bool,
    /// Keys written since the last change set.
    unsettled: Vec<Box<str>>,
}

#[derive(Debug)]
enum Base {
    Given(Given),
    Kept(Kept),
}

/// A value that the handler wrote.
#[derive(Debug)]
pub enum Value {
    Own(Box<[u8]>),
    /// A large one, which the effect to be delivered shares.
    Shared(Shared),
}

impl Value {
    /// Shared where that is worth it.
    pub fn new(bytes: Vec<u8>) -> Self {
        if bytes.len() < SHARED_FROM_BYTES { Self::Own(bytes.into()) } else { Self::Shared(Shared::new(bytes)) }
    }

    /// To be put into an effect.
    pub fn as_part(&self) -> Part<'_> {
        match self {
            Self::Own(bytes) => Part::Copied(bytes),
            Self::Shared(bytes) => Part::Shared(bytes.clone()),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// State of one execution.
#[derive(Debug)]
pub struct StateView {
    base: Base,
    /// What the handler wrote; None: deleted.
    written: HashMap<Box<str>, Option<Value>>,
    written_bytes: u64,
}

impl Given {
    fn index(&mut self) -> Option<&Index> {
        if self.index.is_none() {
            // checked when it came, and then either small or indexed
            self.index = Index::new(&self.bytes, &StopToken::new()).ok();
        }
        self.index.as_ref()
    }

    fn get(&mut self, key: &str) -> Option<&[u8]> {
        self.index()?;
        self.index.as_ref()?.get(&self.bytes, key)
    }
}

impl StateView {
    /// A state that a client sent: a MessagePack map, or what is wrong with it. Strings within values are not looked at.
    pub fn given(state: Vec<u8>, token: &StopToken) -> Result<Self, Halt> {
        let index = if state.len() < INDEXED_FROM_BYTES {
            check(&state, token)?;
            None
        } else {
            Some(Index::new(&state, token)?)
        };
        Ok(Self::of(Given { bytes: state, index }))
    }

    /// A small state of our own making.
    pub fn new(state: Vec<u8>) -> Self {
        Self::of(Given { bytes: state, index: None })
    }

    fn of(given: Given) -> Self {
        Self { base: Base::Given(given), written: HashMap::new(), written_bytes: 0 }
    }

    /// A resident state, as it is now. `expected`: the version that it has to have; nobody else may change it then.
    pub fn resident(state: Arc<ResidentState>, expected: Option<u64>, exclusive: bool) -> Result<Self, WireError> {
        let snapshot = state.snapshot();
        let version = snapshot.version();
        let exclusive = exclusive || expected.is_some();
        let kept = Kept { state, snapshot, version, expected, exclusive, unsettled: Vec::new() };
        let mut view = Self { base: Base::Kept(kept), written: HashMap::new(), written_bytes: 0 };
        view.renew()?;
        Ok(view)
    }

    /// The execution is about to begin: what it reads is the resident state as it is now.
    pub fn renew(&mut self) -> Result<(), WireError> {
        let Base::Kept(kept) = &mut self.base else { return Ok(()) };
        kept.snapshot = kept.state.snapshot();
        kept.version = kept.snapshot.version();
        match kept.expected {
            Some(expected) if expected != kept.version => Err(WireError::stale_version(kept.version, expected)),
            _ => Ok(()),
        }
    }

    /// The encoded value of a key.
    pub fn get(&mut self, key: &str) -> Option<&[u8]> {
        if self.written.contains_key(key) {
            return self.written.get(key)?.as_deref();
        }
        match &mut self.base {
            Base::Given(given) => given.get(key),
            Base::Kept(kept) => kept.snapshot.get(key),
        }
    }

    pub fn set(&mut self, key: &str, value: Value) {
        self.write(key, Some(value));
    }

    /// Whether the key was there.
    pub fn delete(&mut self, key: &str) -> bool {
        let had = self.get(key).is_some();
        self.write(key, None);
        had
    }

    fn write(&mut self, key: &str, value: Option<Value>) {
        if let Base::Kept(kept) = &mut self.base {
            kept.unsettled.push(key.into());
        }
        let len = |value: &Option<Value>| value.as_ref().map_or(0, |v| v.len() as u64);
        self.written_bytes += len(&value);
        match self.written.insert(key.into(), value) {
            Some(old) => self.written_bytes -= len(&old),
            None => self.written_bytes += key.len() as u64 + WRITTEN_ENTRY_BYTES,
        }
    }

    /// Memory that this takes: what the client gave, where its keys stand, and the handler's writes. A resident state counts
    /// elsewhere.
    pub fn held_bytes(&self) -> u64 {
        let given = match &self.base {
            Base::Given(given) => given.bytes.len() + given.index.as_ref().map_or(0, Index::bytes),
            Base::Kept(_) => 0,
        };
        self.written_bytes + given as u64
    }

    /// All keys as a MessagePack array of strings, sorted. None: it may not go on.
    pub fn keys(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Option<Vec<u8>> {
        let Self { base, written, .. } = self;
        match base {
            Base::Given(given) => {
                given.index()?;
                let index = given.index.as_ref()?;
                let covered = written.keys().filter(|key| index.get(&given.bytes, key).is_some()).count();
                let below = index.sorted(&given.bytes, goes_on)?;
                keys_of(below, index.len() - covered, written, goes_on)
            }
            Base::Kept(Kept { snapshot, .. }) => {
                let covered = written.keys().filter(|key| snapshot.get(key).is_some()).count();
                keys_of(snapshot.keys(), snapshot.key_count() - covered, written, goes_on)
            }
        }
    }

    /// Brings what was written since the last time into the resident state, and returns the version that this makes, or
    /// the last one that this execution has seen. None: the state is not a resident one. After an error nothing of it is
    /// in the state, and it is not tried again.
    pub fn settle(&mut self) -> Result<Option<u64>, WireError> {
        let Base::Kept(kept) = &mut self.base else { return Ok(None) };
        let mut keys = std::mem::take(&mut kept.unsettled);
        if keys.is_empty() {
            return Ok(Some(kept.version));
        }
        // what counts of several writes of one key is what it holds now
        keys.sort_unstable();
        keys.dedup();
        let mut changes = Changes::default();
        for key in keys {
            let value = self.written.get(&key).and_then(Option::as_deref);
            changes.push(&key, value, kept.state.budget())?;
        }
        // what has happened in the guest happens here: there is no time for which this would come too late
        let applied = kept.state.apply(changes, kept.exclusive.then_some(kept.version), &StopToken::new());
        kept.version =
            applied.map_err(|halt| halt.into_error(|_| WireError::stale_version(kept.version, kept.version)))?;
        Ok(Some(kept.version))
    }
}

/// The keys `below` that are not written, of which there are `count`, and the written ones that are there.
fn keys_of<'k>(
    below: impl Iterator<Item = &'k str>,
    count: usize,
    written: &'k HashMap<Box<str>, Option<Value>>,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<Vec<u8>> {
    let mut own: Vec<&str> = written.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| &**key).collect();
    own.sort_unstable();
    let mut out = Vec::new();
    let _ = rmp::encode::write_array_len(&mut out, (count + own.len()) as u32);
    let below = below.filter(|key| written.is_empty() || !written.contains_key(*key));
    for (n, key) in merged(below.peekable(), own.into_iter().peekable()).enumerate() {
        if n.is_multiple_of(KEYS) && !goes_on() {
            return None;
        }
        let _ = rmp::encode::write_str(&mut out, key);
    }
    Some(out)
}

/// Two sorted sequences as one.
fn merged<'k>(
    mut a: Peekable<impl Iterator<Item = &'k str>>,
    mut b: Peekable<impl Iterator<Item = &'k str>>,
) -> impl Iterator<Item = &'k str> {
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if y < x => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

#[cfg(test)]
mod tests {
    use nexus_protocol::ContextValue;

    use super::*;
    use crate::budget::Budget;

    fn state(json: serde_json::Value) -> StateView {
        StateView::new(rmp_serde::to_vec(&json).unwrap())
    }

    fn value(json: serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec(&json).unwrap()
    }

    fn own(json: serde_json::Value) -> Value {
        Value::Own(value(json).into())
    }

    fn keys(state: &mut StateView) -> Vec<String> {
        rmp_serde::from_slice(&state.keys(&mut || true).unwrap()).unwrap()
    }

    #[test]
    fn reads_come_from_the_client_until_the_handler_writes() {
        let mut s = state(serde_json::json!({"b": {"deep": [1, 2]}, "a": 1}));
        assert_eq!(s.get("a"), Some(&value(1.into())[..]));
        assert_eq!(s.get("b"), Some(&value(serde_json::json!({"deep": [1, 2]}))[..]));
        assert_eq!(s.get("c"), None);
        s.set("a", own(2.into()));
        s.set("c", own(3.into()));
        assert!(s.delete("b"));
        assert!(!s.delete("b"));
        assert_eq!(s.get("a"), Some(&value(2.into())[..]));
        assert_eq!(s.get("b"), None);
        assert_eq!(keys(&mut s), ["a", "c"]);
    }

    #[test]
    fn of_equal_keys_the_last_one_counts() {
        let mut s = StateView::new(vec![0x82, 0xa1, b'k', 1, 0xa1, b'k', 2]);
        assert_eq!(s.get("k"), Some(&[2][..]));
        assert_eq!(keys(&mut s), ["k"]);
    }

    #[test]
    fn what_is_not_a_map_is_refused() {
        for bytes in [&[0x01][..], &[0x90], &[0x81, 0x01, 0x01], &[0x81, 0xa1, b'k'], &[0x80, 0x80], &[]] {
            assert!(StateView::given(bytes.to_vec(), &StopToken::new()).is_err(), "{bytes:?}");
        }
        assert!(StateView::given(vec![0x80], &StopToken::new()).is_ok());
    }

    /// A state of so many keys: `{"0": "...", "1": ...}`.
    fn many(keys: usize) -> Vec<u8> {
        let map: std::collections::BTreeMap<String, &str> = (0..keys).map(|n| (n.to_string(), "ten bytes.")).collect();
        rmp_serde::to_vec(&map).unwrap()
    }

    #[test]
    fn a_large_state_is_indexed_when_it_comes_and_a_small_one_when_it_is_read() {
        let token = StopToken::new();
        let (small, large) = (many(1000), many(100_000));
        let mut s = StateView::given(small.clone(), &token).unwrap();
        assert_eq!(s.held_bytes(), small.len() as u64);
        assert!(s.get("999").is_some());
        assert!(s.held_bytes() > small.len() as u64);
        let s = StateView::given(large.clone(), &token).unwrap();
        assert!(s.held_bytes() > large.len() as u64 + 8 * 100_000);
        assert!(s.held_bytes() < 2 * large.len() as u64);
        token.stop(crate::token::StopCause::Cancelled);
        assert!(matches!(StateView::given(large, &token), Err(Halt::Stopped(_))));
    }

    #[test]
    fn keys_are_told_with_what_was_written_and_no_longer_than_they_may() {
        for count in [3, 20_000] {
            let mut s = StateView::given(many(count), &StopToken::new()).unwrap();
            s.set("1", own(1.into()));
            s.delete("2");
            s.delete("nothing");
            s.set("x", own(1.into()));
            s.set("", own(1.into()));
            let mut expected: Vec<String> = (0..count).filter(|n| *n != 2).map(|n| n.to_string()).collect();
            expected.extend(["x".into(), String::new()]);
            expected.sort_unstable();
            assert_eq!(keys(&mut s), expected);
            assert_eq!(s.keys(&mut || false), None);
        }
    }

    fn resident(json: serde_json::Value) -> Arc<ResidentState> {
        ResidentState::new(&value(json), &Budget::new("bytes", 10_000), &StopToken::new()).unwrap()
    }

    #[test]
    fn a_resident_state_is_read_as_it_was_under_the_own_writes() {
        let state = resident(serde_json::json!({"a": 1, "b": 2}));
        let mut one = StateView::resident(state.clone(), None, false).unwrap();
        let mut other = StateView::resident(state.clone(), None, false).unwrap();
        one.set("a", own(10.into()));
        one.delete("b");
        assert_eq!(one.settle(), Ok(Some(2)));
        assert_eq!(one.settle(), Ok(Some(2)), "nothing new was written");
        assert_eq!(one.get("a"), Some(&[10][..]));
        assert_eq!(one.get("b"), None);
        assert_eq!(other.get("a"), Some(&[1][..]));
        assert_eq!(other.get("b"), Some(&[2][..]));
        assert_eq!(keys(&mut one), ["a"]);
        assert_eq!(keys(&mut other), ["a", "b"]);
        // the last writer of a key wins; other keys stay as they were made
        other.set("c", own(3.into()));
        other.set("a", own(11.into()));
        other.set("a", own(12.into()));
        assert_eq!(other.settle(), Ok(Some(3)));
        let now = state.snapshot();
        assert_eq!((now.get("a"), now.get("b"), now.get("c")), (Some(&[12][..]), None, Some(&[3][..])));
    }

    #[test]
    fn who_wants_to_be_alone_loses_to_whoever_was_faster() {
        let state = resident(serde_json::json!({"a": 1}));
        assert!(StateView::resident(state.clone(), Some(2), false).is_err());
        let mut first = StateView::resident(state.clone(), Some(1), false).unwrap();
        let mut second = StateView::resident(state.clone(), None, true).unwrap();
        first.set("a", own(2.into()));
        assert_eq!(first.settle(), Ok(Some(2)));
        first.set("a", own(3.into()));
        assert_eq!(first.settle(), Ok(Some(3)), "its own changes are no conflict");
        second.set("b", own(9.into()));
        assert_eq!(second.settle().unwrap_err().context["reason"], ContextValue::Text("stale-version".into()));
        assert_eq!(second.settle(), Ok(Some(1)), "the lost change set is not tried again");
        assert_eq!((state.snapshot().get("a"), state.snapshot().get("b")), (Some(&[3][..]), None));
    }
}
