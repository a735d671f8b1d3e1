//! Where the keys of a client's state stand: found without decoding a value, in memory that is small beside the state.
//!
//! A few keys are compared one by one; more of them are looked up in a table of open addressing, by a hash under a secret of
//! this process, since the keys are the client's. Slots hold positions, no copies.
//!
//! Invariants: of equal keys the last one counts, at the place of the first, as in JavaScript; the table is never full. What a look through all keys
//! takes is bounded by `MAX_STATE_KEYS`, and it asks whether it may go on.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use nexus_protocol::payload::{self, PayloadError};
use nexus_protocol::{ErrorCode, WireError};

use super::abi::STATE_METHODS;
use crate::halt::{Halt, PayloadPace};
use crate::resident::check_key_count;
use crate::sort::sort;
use crate::token::StopToken;

/// So many keys are compared one by one: that takes less than to hash them all.
const FEW: usize = 8;

/// Memory of an entry of `firsts`.
const FIRST_BYTES: usize = 17;

/// One entry of the map: its key starts at `key`, its value ends before `end`. The map's own header stands at 0, so a `key` of 0
/// is a free slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u32,
    end: u32,
}

/// See the module. Belongs to the bytes that it was made of.
#[derive(Debug)]
pub(super) struct Index {
    slots: Box<[Slot]>,
    /// Keys, each once.
    len: usize,
    /// None: the slots are in the order of the map.
    secret: Option<RandomState>,
    /// Which keys are called like methods, see [`check`].
    pub methods: u32,
    /// Where the first of equal keys stood, by the slot that the last one has.
    firsts: HashMap<usize, u32>,
}

/// What is wrong with bytes that a client sent as a state.
fn not_a_state(error: PayloadError) -> WireError {
    WireError::new(error.code(), format!("state: {error}"))
}

/// Whether bytes that a client sent can be a state, and which of its keys are called like methods. Strings within values are not
/// looked at.
pub(super) fn check(bytes: &[u8], token: &StopToken) -> Result<u32, Halt> {
    walk(bytes, token, |_| 0, |methods, key, _| *methods |= method_bit(key))
}

/// The bit of the method of `$state` that has this name; none.
fn method_bit(key: &str) -> u32 {
    STATE_METHODS.iter().position(|method| *method == key).map_or(0, |bit| 1 << bit)
}

/// Tells first how many keys the map says to have, then of every entry.
fn walk<T>(
    bytes: &[u8],
    token: &StopToken,
    begin: impl FnOnce(usize) -> T,
    mut entry: impl FnMut(&mut T, &str, Slot),
) -> Result<T, Halt> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(WireError::new(ErrorCode::InvalidArgument, "state: it is larger than any frame").into());
    }
    let mut pace = PayloadPace::new(token);
    let mut entries = payload::map_entries_paced(bytes, &mut pace).map_err(not_a_state)?;
    // each takes two bytes at least: a claim beyond that cannot be kept
    if entries.claimed() as usize > bytes.len() / 2 {
        return Err(not_a_state(PayloadError::Truncated).into());
    }
    check_key_count(entries.claimed() as usize)?;
    let mut found = begin(entries.claimed() as usize);
    // entries stand one behind the other
    let mut start = map_header_bytes(bytes);
    let fault = loop {
        match entries.next() {
            Some(Ok((key, value))) => {
                let end = value.as_ptr().addr() - bytes.as_ptr().addr() + value.len();
                entry(&mut found, key, Slot { key: start as u32, end: end as u32 });
                start = end;
            }
            Some(Err(error)) => break error,
            None => return Ok(found),
        }
    };
    Err(pace.halt(fault, not_a_state))
}

fn map_header_bytes(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(0xde) => 3,
        Some(0xdf) => 5,
        _ => 1,
    }
}

impl Slot {
    fn is_free(self) -> bool {
        self.key == 0
    }

    /// Its key and its value.
    fn entry(self, bytes: &[u8]) -> Option<(&str, &[u8])> {
        payload::leading_str(bytes.get(self.key as usize..self.end as usize)?).ok()
    }

    fn key(self, bytes: &[u8]) -> &str {
        self.entry(bytes).map_or("", |(key, _)| key)
    }
}

impl Index {
    /// Of bytes that are checked on the way.
    pub fn new(bytes: &[u8], token: &StopToken) -> Result<Self, Halt> {
        let begin = |claimed: usize| {
            let secret = (claimed > FEW).then(RandomState::new);
            let room = if secret.is_some() { claimed + claimed / 3 + 1 } else { claimed };
            Self { slots: vec![Slot::default(); room].into(), len: 0, secret, methods: 0, firsts: HashMap::new() }
        };
        walk(bytes, token, begin, |index, key, slot| index.add(bytes, key, slot))
    }

    fn add(&mut self, bytes: &[u8], key: &str, slot: Slot) {
        self.methods |= method_bit(key);
        let at = self.find(bytes, key);
        if let Some(place) = self.slots.get_mut(at) {
            if place.is_free() {
                self.len += 1;
            } else {
                self.firsts.entry(at).or_insert(place.key);
            }
            *place = slot;
        }
    }

    /// The slot of that key, or the free one where it would be.
    fn find(&self, bytes: &[u8], key: &str) -> usize {
        let is_end = |slot: &Slot| slot.is_free() || slot.key(bytes) == key;
        let Some(secret) = &self.secret else {
            return self.slots.iter().position(is_end).unwrap_or(self.slots.len());
        };
        let room = self.slots.len();
        let start = ((u128::from(secret.hash_one(key)) * room as u128) >> 64) as usize;
        let (before, behind) = self.slots.split_at(start);
        match behind.iter().position(is_end) {
            Some(at) => start + at,
            None => before.iter().position(is_end).unwrap_or(room),
        }
    }

    /// The encoded value of a key.
    pub fn get<'b>(&self, bytes: &'b [u8], key: &str) -> Option<&'b [u8]> {
        let slot = self.slots.get(self.find(bytes, key))?;
        slot.entry(bytes).filter(|_| !slot.is_free()).map(|(_, value)| value)
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.firsts.capacity() * FIRST_BYTES
    }

    /// Where the keys stand, in the order of the map; None: it may not go on. For [`key_at`].
    pub fn places(&self, goes_on: &mut dyn FnMut() -> bool) -> Option<Vec<u32>> {
        let mut places = Vec::with_capacity(self.len);
        let taken = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_free());
        places.extend(taken.map(|(at, slot)| self.firsts.get(&at).copied().unwrap_or(slot.key)));
        sort(&mut places, goes_on).then_some(places)
    }
}

/// The key that stands there.
pub(super) fn key_at(bytes: &[u8], place: u32) -> &str {
    payload::leading_str(bytes.get(place as usize..).unwrap_or_default()).map_or("", |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use nexus_protocol::limits::MAX_STATE_KEYS;

    use super::*;
    use crate::random::Random;
    use crate::sort::RUN;
    use crate::token::StopCause;

    /// A map of these keys, each with its number as value.
    fn map<'k>(keys: impl ExactSizeIterator<Item = &'k str>) -> Vec<u8> {
        let mut out = Vec::new();
        rmp::encode::write_map_len(&mut out, keys.len() as u32).unwrap();
        for (n, key) in keys.enumerate() {
            rmp::encode::write_str(&mut out, key).unwrap();
            rmp::encode::write_uint(&mut out, n as u64).unwrap();
        }
        out
    }

    fn number(value: &[u8]) -> u64 {
        rmp_serde::from_slice(value).unwrap()
    }

    fn index(bytes: &[u8]) -> Index {
        Index::new(bytes, &StopToken::new()).unwrap()
    }

    fn in_order<'b>(index: &Index, bytes: &'b [u8]) -> Vec<&'b str> {
        index.places(&mut || true).unwrap().into_iter().map(|place| key_at(bytes, place)).collect()
    }

    #[test]
    fn a_number_of_keys_that_no_bytes_could_hold_is_refused_before_room_is_made_for_it() {
        // three entries of three bytes, and a header that claims more than two bytes each would make
        let mut bytes = map(["a", "b", "c"].into_iter());
        assert_eq!(bytes.len(), 10);
        for claimed in [6, 15] {
            bytes[0] = 0x80 | claimed;
            let walked = walk(&bytes, &StopToken::default(), |_| panic!("room for {claimed}"), |(): &mut (), _, _| ());
            assert!(walked.is_err(), "{claimed}");
        }
        bytes[0] = 0x85;
        let walked = walk(&bytes, &StopToken::default(), drop, |(): &mut (), _, _| ());
        assert!(walked.is_err());
    }

    #[test]
    fn every_key_is_found_at_its_last_value_whatever_their_number() {
        let mut random = Random(7);
        for count in [0, 1, 2, FEW, FEW + 1, 20, 1000, RUN, RUN + 1, 3 * RUN + 17] {
            // some of them several times
            let names: Vec<String> = (0..count).map(|_| format!("key{}", random.below(count.max(1)))).collect();
            let bytes = map(names.iter().map(String::as_str));
            let index = index(&bytes);
            let last: std::collections::BTreeMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
            assert_eq!(index.len, last.len());
            for (name, n) in &last {
                assert_eq!(index.get(&bytes, name).map(number), Some(*n as u64), "{name} of {count}");
            }
            assert_eq!(index.get(&bytes, "nothing"), None);
            assert_eq!(index.get(&bytes, ""), None);
            let mut in_map: Vec<&str> = Vec::new();
            let mut seen = std::collections::HashSet::new();
            in_map.extend(names.iter().map(String::as_str).filter(|name| seen.insert(*name)));
            assert_eq!(in_order(&index, &bytes), in_map, "{count}");
        }
    }

    #[test]
    fn headers_may_be_longer_than_they_have_to_be() {
        // a map32 with keys as str32, str16, str8 and a short one; the empty name is a name
        let bytes = [
            &[0xdf, 0, 0, 0, 4, 0xdb, 0, 0, 0, 1, b'a', 1, 0xda, 0, 1, b'b', 0xc4, 2, 9, 9][..],
            &[0xd9, 1, b'c', 0x91, 7, 0xa0, 0xc0],
        ]
        .concat();
        let index = index(&bytes);
        let values = ["a", "b", "c", ""].map(|key| index.get(&bytes, key));
        assert_eq!(values, [Some(&[1][..]), Some(&[0xc4, 2, 9, 9]), Some(&[0x91, 7]), Some(&[0xc0])]);
        assert_eq!(in_order(&index, &bytes), ["a", "b", "c", ""]);
    }

    #[test]
    fn a_claim_takes_no_more_memory_than_the_bytes_that_back_it() {
        let claims = [&[0xdf, 0, 0x0f, 0x42, 0x40][..], &[0xa1, b'k', 1]].concat();
        assert!(matches!(Index::new(&claims, &StopToken::new()), Err(Halt::Refused(_))));
        let most = map((0..MAX_STATE_KEYS).map(|n| n.to_string()).collect::<Vec<_>>().iter().map(String::as_str));
        let index = index(&most);
        assert_eq!(index.len, MAX_STATE_KEYS);
        assert!(index.bytes() < 11 * MAX_STATE_KEYS, "{} bytes", index.bytes());
        assert!(index.bytes() < 2 * most.len());
    }

    #[test]
    fn more_keys_than_there_may_be_are_refused_before_they_are_read() {
        let mut bytes = vec![0xdf];
        bytes.extend_from_slice(&(MAX_STATE_KEYS as u32 + 1).to_be_bytes());
        bytes.resize(bytes.len() + 2 * (MAX_STATE_KEYS + 1), 0xc1);
        for made in [check(&bytes, &StopToken::new()), Index::new(&bytes, &StopToken::new()).map(|index| index.methods)]
        {
            let Err(Halt::Refused(error)) = made else { panic!("it was accepted") };
            assert_eq!(error.code, ErrorCode::ResourceLimit);
            assert_eq!(error.context["resource"], nexus_protocol::ContextValue::Text("maxStateKeys".into()));
        }
    }

    #[test]
    fn places_of_keys_that_come_twice_count() {
        let names: Vec<String> = (0..200).map(|n| format!("k{}", n % 100)).collect();
        let index = index(&map(names.iter().map(String::as_str)));
        assert_eq!(index.firsts.len(), 100);
        let slots = index.slots.len() * size_of::<Slot>();
        assert!(index.bytes() >= slots + 100 * FIRST_BYTES && index.bytes() <= slots + 400 * FIRST_BYTES);
    }

    #[test]
    fn everything_ends_when_it_may_not_go_on() {
        let names: Vec<String> = (0..200_000).map(|n| format!("{n:x}")).collect();
        let bytes = map(names.iter().map(String::as_str));
        let index = index(&bytes);
        let token = StopToken::new();
        token.stop(StopCause::Cancelled);
        assert_eq!(check(&bytes, &token), Err(Halt::Stopped(StopCause::Cancelled)));
        assert!(matches!(Index::new(&bytes, &token), Err(Halt::Stopped(StopCause::Cancelled))));
        let mut asked = 0;
        places_for(&index, &mut asked, usize::MAX).unwrap();
        assert!(asked > 200_000 / RUN, "asked {asked} times");
        let whole = asked;
        for most in [0, 1, whole / 2, whole - 1] {
            asked = 0;
            assert!(places_for(&index, &mut asked, most).is_none(), "{most} of {whole}");
            assert_eq!(asked, most + 1);
        }
    }

    fn places_for(index: &Index, asked: &mut usize, most: usize) -> Option<usize> {
        let mut goes_on = || {
            *asked += 1;
            *asked <= most
        };
        index.places(&mut goes_on).map(|places| places.len())
    }
}
