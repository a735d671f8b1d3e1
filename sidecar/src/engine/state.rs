//! The state of one execution as the host sees it: what the client gave, never decoded, under the handler's writes.
//!
//! A state that came with the request is a MessagePack map; it is walked once, and values are skipped. Where its keys stand is
//! noted on that walk if it is large, so that nothing large is done while the guest waits; else when a key is first needed.
//! A handler that reads one key of a large state pays for the walk and for that key. A resident state is read as it was when
//! the execution began, and pays for the key alone; what the handler writes is brought into it at the end of each segment.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use nexus_protocol::pieces::SHARED_FROM_BYTES;
use nexus_protocol::{Part, Shared, WireError};

use super::abi::STATE_METHODS;
use super::state_index::{Index, check, key_at};
use crate::halt::Halt;
use crate::resident::{Changes, ResidentState, Snapshot};
use crate::sort::sort;
use crate::token::StopToken;

/// Of a write, beside its key and value: a slot of the table and two allocations.
const WRITTEN_ENTRY_BYTES: u64 = 104;

/// A state from this size on is indexed before the guest is entered. A smaller one is walked in less than a millisecond.
const INDEXED_FROM_BYTES: usize = 64 << 10;

/// Keys that are told between two questions whether to go on.
const KEYS: usize = 4096;

/// A state that belongs to the execution alone.
#[derive(Debug)]
struct Given {
    bytes: Vec<u8>,
    index: Option<Index>,
    /// Which keys are called like methods of `$state`; None: nobody has looked yet.
    methods: Option<u32>,
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
    written: HashMap<Box<str>, Written>,
    written_bytes: u64,
    /// By which the next key is told that is made.
    births: u32,
}

/// What the handler has made of a key.
#[derive(Debug)]
struct Written {
    /// None: deleted.
    value: Option<Value>,
    /// How many keys were made before this one.
    born: u32,
    /// Whether it was deleted once: then it stands where it was made again, not where it stood.
    anew: bool,
    /// Whether a resident state has yet to hear of that.
    moved: bool,
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
        let (index, methods) = if state.len() < INDEXED_FROM_BYTES {
            (None, check(&state, token)?)
        } else {
            let index = Index::new(&state, token)?;
            let methods = index.methods;
            (Some(index), methods)
        };
        Ok(Self::of(Given { bytes: state, index, methods: Some(methods) }))
    }

    /// A small state of our own making.
    pub fn new(state: Vec<u8>) -> Self {
        Self::of(Given { bytes: state, index: None, methods: None })
    }

    fn of(given: Given) -> Self {
        Self { base: Base::Given(given), written: HashMap::new(), written_bytes: 0, births: 0 }
    }

    /// A resident state, as it is now. `expected`: the version that it has to have; nobody else may change it then.
    pub fn resident(state: Arc<ResidentState>, expected: Option<u64>, exclusive: bool) -> Result<Self, WireError> {
        let snapshot = state.snapshot();
        let version = snapshot.version();
        let exclusive = exclusive || expected.is_some();
        let kept = Kept { state, snapshot, version, expected, exclusive, unsettled: Vec::new() };
        let mut view = Self { base: Base::Kept(kept), written: HashMap::new(), written_bytes: 0, births: 0 };
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

    /// Bits of the keys that are called like methods, in the order of [`STATE_METHODS`]. What the handler writes does not count.
    pub fn keys_like_methods(&mut self) -> u32 {
        match &mut self.base {
            Base::Given(given) => match given.methods {
                Some(methods) => methods,
                None => given.index().map_or(0, |index| index.methods),
            },
            Base::Kept(kept) => {
                let bit = |(bit, name): (usize, &&str)| u32::from(kept.snapshot.get(name).is_some()) << bit;
                STATE_METHODS.iter().enumerate().map(bit).sum()
            }
        }
    }

    /// The encoded value of a key.
    pub fn get(&mut self, key: &str) -> Option<&[u8]> {
        if self.written.contains_key(key) {
            return self.written.get(key)?.value.as_deref();
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
        match self.written.get_mut(key) {
            Some(written) => {
                self.written_bytes -= len(&written.value);
                if written.value.is_none() && value.is_some() {
                    (written.born, written.anew, written.moved) = (self.births, true, true);
                    self.births += 1;
                }
                written.value = value;
            }
            None => {
                self.written_bytes += key.len() as u64 + WRITTEN_ENTRY_BYTES;
                self.written.insert(key.into(), Written { value, born: self.births, anew: false, moved: false });
                self.births += 1;
            }
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

    /// All keys as a MessagePack array of strings, in the order of an object's properties: those that are array indices by their
    /// number, then the others as the client's map has them, or as they came into a resident state, then what the handler has made.
    /// None: it may not go on.
    pub fn keys(&mut self, goes_on: &mut dyn FnMut() -> bool) -> Option<Vec<u8>> {
        let Self { base, written, .. } = self;
        match base {
            Base::Given(given) => {
                let places = given.index()?.places(goes_on)?;
                let index = given.index.as_ref()?;
                let is_below = |key: &str| index.get(&given.bytes, key).is_some();
                keys_of(|| places.iter().map(|place| key_at(&given.bytes, *place)), is_below, written, goes_on)
            }
            Base::Kept(Kept { snapshot, .. }) => {
                let below = snapshot.keys(goes_on)?;
                keys_of(|| below.iter().copied(), |key| snapshot.get(key).is_some(), written, goes_on)
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
        // what counts of several writes of one key is what it holds now, and of several keys in which order they were made
        keys.sort_unstable();
        keys.dedup();
        let mut keys: Vec<(u32, Box<str>)> =
            keys.into_iter().map(|key| (self.written.get(&key).map_or(0, |written| written.born), key)).collect();
        keys.sort_unstable();
        let mut changes = Changes::default();
        for (_, key) in &keys {
            let Some(written) = self.written.get_mut(key) else { continue };
            let value = written.value.as_deref();
            if value.is_some() && std::mem::take(&mut written.moved) {
                changes.push(key, None, kept.state.budget())?;
            }
            changes.push(key, value, kept.state.budget())?;
        }
        // what has happened in the guest happens here: there is no time for which this would come too late
        let applied = kept.state.apply(changes, kept.exclusive.then_some(kept.version), &StopToken::new());
        kept.version =
            applied.map_err(|halt| halt.into_error(|_| WireError::stale_version(kept.version, kept.version)))?;
        Ok(Some(kept.version))
    }
}

/// The keys `below`, those of them that are there still and at their place, and the written ones behind them.
fn keys_of<'k, I: Iterator<Item = &'k str>>(
    below: impl Fn() -> I,
    is_below: impl Fn(&str) -> bool,
    written: &'k HashMap<Box<str>, Written>,
    goes_on: &mut dyn FnMut() -> bool,
) -> Option<Vec<u8>> {
    let stays = |key: &str| written.get(key).is_none_or(|own| own.value.is_some() && !own.anew);
    let is_new = |(key, own): &(&str, &Written)| own.value.is_some() && (own.anew || !is_below(key));
    let mut new: Vec<(u32, &str)> =
        written.iter().map(|(key, own)| (&**key, own)).filter(is_new).map(|(key, own)| (own.born, key)).collect();
    new.sort_unstable();
    let all = || below().filter(|key| written.is_empty() || stays(key)).chain(new.iter().map(|(_, key)| *key));
    let (mut indices, mut count) = (Vec::new(), 0u32);
    for (n, key) in all().enumerate() {
        if n.is_multiple_of(KEYS) && !goes_on() {
            return None;
        }
        count += 1;
        indices.extend(array_index(key));
    }
    if !sort(&mut indices, goes_on) {
        return None;
    }
    let mut out = Vec::new();
    let _ = rmp::encode::write_array_len(&mut out, count);
    for index in &indices {
        let _ = rmp::encode::write_str(&mut out, &index.to_string());
    }
    for (n, key) in all().filter(|key| indices.is_empty() || array_index(key).is_none()).enumerate() {
        if n.is_multiple_of(KEYS) && !goes_on() {
            return None;
        }
        let _ = rmp::encode::write_str(&mut out, key);
    }
    Some(out)
}

/// The number that a key is, if JavaScript takes it for the index of an array: such properties come first.
fn array_index(key: &str) -> Option<u32> {
    let digits = key.as_bytes();
    let canonical = digits.first().is_some_and(|first| *first != b'0' || digits.len() == 1);
    // no sign: `parse` would take one
    (canonical && digits.iter().all(u8::is_ascii_digit)).then(|| key.parse().ok())?.filter(|n| *n != u32::MAX)
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
            s.set("01", own(1.into()));
            s.set("4294967295", own(1.into()));
            s.delete("x");
            s.set("x", own(1.into()));
            let mut expected: Vec<String> = (0..count).filter(|n| *n != 2).map(|n| n.to_string()).collect();
            expected.extend(["", "01", "4294967295", "x"].map(String::from));
            assert_eq!(keys(&mut s), expected);
            assert_eq!(s.keys(&mut || false), None);
        }
    }

    #[test]
    fn keys_stay_where_they_are_until_they_are_deleted() {
        let mut s = StateView::new(vec![0x83, 0xa1, b'c', 1, 0xa1, b'7', 1, 0xa1, b'a', 1]);
        s.set("n", own(1.into()));
        s.set("a", own(2.into()));
        s.set("c", own(2.into()));
        assert_eq!(keys(&mut s), ["7", "c", "a", "n"]);
        s.delete("c");
        s.set("c", own(3.into()));
        s.set("b", own(4.into()));
        assert_eq!(keys(&mut s), ["7", "a", "n", "c", "b"]);
    }

    #[test]
    fn what_is_written_counts_as_long_as_it_is_there() {
        let mut s = state(serde_json::json!({}));
        assert_eq!(s.get("key"), None);
        let empty = s.held_bytes();
        let entry = empty + 3 + WRITTEN_ENTRY_BYTES;
        s.set("key", own("value".into()));
        assert_eq!(s.held_bytes(), entry + 6);
        s.set("key", own(1.into()));
        assert_eq!(s.held_bytes(), entry + 1);
        s.delete("key");
        assert_eq!(s.held_bytes(), entry);
        s.set("key", own("again".into()));
        assert_eq!(s.held_bytes(), entry + 6);
        s.set("k2", own(true.into()));
        assert_eq!(s.held_bytes(), entry + 6 + 2 + WRITTEN_ENTRY_BYTES + 1);
    }

    #[test]
    fn what_is_overwritten_keeps_its_place_here_and_in_a_resident_state() {
        let shared = resident(serde_json::json!({"a": 1, "b": 2}));
        let views =
            [state(serde_json::json!({"a": 1, "b": 2})), StateView::resident(shared.clone(), None, false).unwrap()];
        for mut s in views {
            s.set("c", own(3.into()));
            s.set("d", own(4.into()));
            s.set("c", own(5.into()));
            s.set("a", own(6.into()));
            assert_eq!(keys(&mut s), ["a", "b", "c", "d"]);
            s.settle().unwrap();
        }
        let kept = |shared: &Arc<ResidentState>| keys(&mut StateView::resident(shared.clone(), None, false).unwrap());
        assert_eq!(kept(&shared), ["a", "b", "c", "d"]);
        let mut s = StateView::resident(shared.clone(), None, false).unwrap();
        s.set("b", own(7.into()));
        s.delete("a");
        s.set("a", own(8.into()));
        s.settle().unwrap();
        assert_eq!(kept(&shared), ["b", "c", "d", "a"]);
        s.set("b", own(9.into()));
        s.set("a", own(10.into()));
        s.set("c", own(11.into()));
        s.settle().unwrap();
        assert_eq!(kept(&shared), ["b", "c", "d", "a"], "it was moved once");
    }

    #[test]
    fn keys_that_are_called_like_methods_are_known() {
        let methods = bits_of_two();
        for count in [0, 2000] {
            let mut map = serde_json::json!({"has": 1, "update": 2, "has ": 3, "GET": 4});
            for n in 0..count {
                map[format!("a key of so many bytes, number {n}")] = n.into();
            }
            assert_eq!(StateView::given(value(map.clone()), &StopToken::new()).unwrap().keys_like_methods(), methods);
            assert_eq!(state(map.clone()).keys_like_methods(), methods);
        }
        let kept = resident(serde_json::json!({"has": 1, "update": 2}));
        assert_eq!(StateView::resident(kept, None, false).unwrap().keys_like_methods(), methods);
    }

    /// The bits of `has` and `update`.
    fn bits_of_two() -> u32 {
        STATE_METHODS
            .iter()
            .zip(0..)
            .filter(|(name, _)| ["has", "update"].contains(name))
            .map(|(_, bit)| 1 << bit)
            .sum()
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
