//! The state of one execution as the host sees it: the client's MessagePack map, never decoded, under the handler's writes.
//!
//! The map is walked once, when a key is first needed; values are skipped. A key is then found by binary search, so that a
//! handler that reads one key of a large state pays for the walk and for that key.

use std::collections::HashMap;
use std::ops::Range;

use nexus_protocol::payload::{self, PayloadError};

/// One key of the client's map: where its name and its value stand.
#[derive(Debug)]
struct Entry {
    key: Range<u32>,
    value: Range<u32>,
}

/// State of one execution.
#[derive(Debug)]
pub struct StateView {
    base: Vec<u8>,
    /// Sorted by key, stable: of equal keys the last one counts, as in JavaScript.
    index: Option<Vec<Entry>>,
    /// What the handler wrote; None: deleted.
    written: HashMap<Box<str>, Option<Box<[u8]>>>,
}

impl StateView {
    /// `base`: a MessagePack map, already found to be one value (`check`).
    pub fn new(base: Vec<u8>) -> Self {
        Self { base, index: None, written: HashMap::new() }
    }

    /// Whether bytes that a client sent can be a state. Strings within values are not looked at.
    pub fn check(bytes: &[u8]) -> Result<(), PayloadError> {
        for entry in payload::map_entries(bytes)? {
            entry?;
        }
        Ok(())
    }

    fn index(&mut self) -> &[Entry] {
        if self.index.is_none() {
            let start = self.base.as_ptr() as usize;
            let place = |part: &[u8]| {
                let at = (part.as_ptr() as usize - start) as u32;
                at..at + part.len() as u32
            };
            let mut entries: Vec<Entry> = payload::map_entries(&self.base)
                .into_iter()
                .flatten()
                .map_while(Result::ok)
                .map(|(key, value)| Entry { key: place(key.as_bytes()), value: place(value) })
                .collect();
            entries.sort_by(|a, b| self.base[range(&a.key)].cmp(&self.base[range(&b.key)]));
            self.index = Some(entries);
        }
        self.index.as_deref().unwrap_or_default()
    }

    /// The encoded value of a key.
    pub fn get(&mut self, key: &str) -> Option<&[u8]> {
        if self.written.contains_key(key) {
            return self.written.get(key)?.as_deref();
        }
        self.index();
        let entries = self.index.as_deref().unwrap_or_default();
        let after = entries.partition_point(|e| self.base[range(&e.key)] <= *key.as_bytes());
        let entry = entries.get(after.checked_sub(1)?)?;
        (self.base[range(&entry.key)] == *key.as_bytes()).then(|| &self.base[range(&entry.value)])
    }

    pub fn set(&mut self, key: &str, value: &[u8]) {
        self.written.insert(key.into(), Some(value.into()));
    }

    /// Whether the key was there.
    pub fn delete(&mut self, key: &str) -> bool {
        let had = self.get(key).is_some();
        self.written.insert(key.into(), None);
        had
    }

    /// All keys as a MessagePack array of strings, sorted.
    pub fn keys(&mut self) -> Vec<u8> {
        self.index();
        let base = &self.base;
        let mut keys: Vec<&[u8]> =
            self.index.as_deref().unwrap_or_default().iter().map(|e| &base[range(&e.key)]).collect();
        keys.dedup();
        keys.retain(|key| std::str::from_utf8(key).is_ok_and(|key| !self.written.contains_key(key)));
        keys.extend(self.written.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key.as_bytes()));
        keys.sort_unstable();
        let mut out = Vec::with_capacity(5 + keys.iter().map(|k| k.len() + 5).sum::<usize>());
        let _ = rmp::encode::write_array_len(&mut out, keys.len() as u32);
        for key in keys {
            let _ = rmp::encode::write_str_len(&mut out, key.len() as u32);
            out.extend_from_slice(key);
        }
        out
    }
}

fn range(r: &Range<u32>) -> Range<usize> {
    r.start as usize..r.end as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: serde_json::Value) -> StateView {
        StateView::new(rmp_serde::to_vec(&json).unwrap())
    }

    fn value(json: serde_json::Value) -> Vec<u8> {
        rmp_serde::to_vec(&json).unwrap()
    }

    fn keys(state: &mut StateView) -> Vec<String> {
        rmp_serde::from_slice(&state.keys()).unwrap()
    }

    #[test]
    fn reads_come_from_the_client_until_the_handler_writes() {
        let mut s = state(serde_json::json!({"b": {"deep": [1, 2]}, "a": 1}));
        assert_eq!(s.get("a"), Some(&value(1.into())[..]));
        assert_eq!(s.get("b"), Some(&value(serde_json::json!({"deep": [1, 2]}))[..]));
        assert_eq!(s.get("c"), None);
        s.set("a", &value(2.into()));
        s.set("c", &value(3.into()));
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
            assert!(StateView::check(bytes).is_err(), "{bytes:?}");
        }
        assert!(StateView::check(&[0x80]).is_ok());
    }
}
