//! Lists of effects: the payload arrays of a segment (SPEC 3).
//!
//! The sidecar builds a list while the handler runs, one effect per host call, from values that stay bytes; a client
//! walks it without decoding those values. Large values are not copied into it, if whoever pushes them shares them.
//!
//! Invariants: a list is well-formed after every push; its length in bytes is known at any time, so that a cap can be
//! checked before a push. What it does not do: check that a value pushed is one MessagePack value (the host-call
//! boundary does, with `payload::validate`).

use rmp::encode::{write_f64, write_map_len, write_sint, write_str};

use crate::payload::{ArrayItems, PayloadError, array_items, as_str, map_entries};
use crate::pieces::{Part, Pieces};

/// Largest integer that a double holds exactly, and with it all smaller ones.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Header of an array with a 32-bit length: one marker, four bytes.
const HEADER: [u8; 5] = [0xdd, 0, 0, 0, 0];

/// A growing payload array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectList {
    bytes: Pieces,
    count: u32,
}

impl Default for EffectList {
    fn default() -> Self {
        Self::new()
    }
}

impl EffectList {
    /// An empty list. Reserves nothing yet.
    pub const fn new() -> Self {
        Self { bytes: Pieces::new(), count: 0 }
    }

    /// Effects in it.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Length of the payload.
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload; `None` when there are no effects, which is how the wire says so.
    pub fn pieces(&self) -> Option<&Pieces> {
        (!self.is_empty()).then_some(&self.bytes)
    }

    /// The payload in one place; `None` also when a part of it is shared.
    pub fn payload(&self) -> Option<&[u8]> {
        self.pieces().and_then(Pieces::as_slice)
    }

    /// Ready for the next segment, its memory kept.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// `{op: "set", key, value}`.
    pub fn push_set<'a>(&mut self, key: &str, value: impl Into<Part<'a>>) {
        self.push(3, |out| {
            text(out.own(), "op", "set");
            text(out.own(), "key", key);
            raw(out, "value", value.into());
        });
    }

    /// `{op: "delete", key}`.
    pub fn push_delete(&mut self, key: &str) {
        self.push(2, |out| {
            text(out.own(), "op", "delete");
            text(out.own(), "key", key);
        });
    }

    /// `{name, payload, timestamp}`.
    pub fn push_event<'a>(&mut self, name: &str, payload: impl Into<Part<'a>>, timestamp_ms: f64) {
        self.push(3, |out| {
            text(out.own(), "name", name);
            raw(out, "payload", payload.into());
            number(out.own(), "timestamp", timestamp_ms);
        });
    }

    /// `{viewId, command, params}`.
    pub fn push_view_command<'a>(&mut self, view_id: &str, command: &str, params: impl Into<Part<'a>>) {
        self.push(3, |out| {
            text(out.own(), "viewId", view_id);
            text(out.own(), "command", command);
            raw(out, "params", params.into());
        });
    }

    /// `{level, message, timestamp}`.
    pub fn push_log(&mut self, level: &str, message: &str, timestamp_ms: f64) {
        self.push(3, |out| {
            text(out.own(), "level", level);
            text(out.own(), "message", message);
            number(out.own(), "timestamp", timestamp_ms);
        });
    }

    fn push(&mut self, keys: u32, write: impl FnOnce(&mut Pieces)) {
        if self.bytes.is_empty() {
            self.bytes.own().extend_from_slice(&HEADER);
        }
        written(write_map_len(self.bytes.own(), keys));
        write(&mut self.bytes);
        self.count = self.count.saturating_add(1);
        if let Some(length) = self.bytes.own().get_mut(1..).and_then(<[u8]>::first_chunk_mut) {
            *length = self.count.to_be_bytes();
        }
    }
}

fn text(out: &mut Vec<u8>, key: &str, value: &str) {
    written(write_str(out, key));
    written(write_str(out, value));
}

fn raw(out: &mut Pieces, key: &str, value: Part<'_>) {
    written(write_str(out.own(), key));
    out.push(value);
}

/// A number as JavaScript would send it: an integer where it is one.
fn number(out: &mut Vec<u8>, key: &str, value: f64) {
    written(write_str(out, key));
    if value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER {
        written(write_sint(out, value as i64));
    } else {
        written(write_f64(out, value));
    }
}

/// Writing to a `Vec` cannot fail; the result only exists because rmp writes to anything.
fn written<T, E>(result: Result<T, E>) {
    debug_assert!(result.is_ok());
}

/// One effect of a list, its keys not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect<'a>(&'a [u8]);

impl<'a> Effect<'a> {
    /// The payload under `key`. `None` when it is not there or the effect is broken.
    pub fn field(&self, key: &str) -> Option<&'a [u8]> {
        map_entries(self.0).ok()?.map_while(Result::ok).find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The string under `key`.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.field(key).and_then(as_str)
    }

    /// The whole effect.
    pub fn payload(&self) -> &'a [u8] {
        self.0
    }
}

/// Walks a list of effects.
pub fn effects(list: &[u8]) -> Result<Effects<'_>, PayloadError> {
    array_items(list).map(Effects)
}

/// See [`effects`].
#[derive(Clone, Debug)]
pub struct Effects<'a>(ArrayItems<'a>);

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|item| item.map(Effect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::validate;

    #[test]
    fn a_list_is_well_formed_after_every_push() {
        let mut list = EffectList::new();
        assert_eq!(list.payload(), None);
        for count in 1..=70_000 {
            list.push_delete("k");
            assert_eq!(list.count(), count);
            if count % 9_999 == 1 {
                assert_eq!(validate(list.payload().unwrap()), Ok(()));
            }
        }
    }

    #[test]
    fn effects_are_read_back() {
        let mut list = EffectList::new();
        list.push_set("user", &[0x92, 1, 2]);
        list.push_event("saved", &[0xc0], 1_700_000_000_000.0);
        list.push_view_command("grid", "focus", &[0x80]);
        list.push_log("warn", "careful", 1.5);
        let read: Vec<_> = effects(list.payload().unwrap()).unwrap().map(Result::unwrap).collect();
        assert_eq!(read[0].text("op"), Some("set"));
        assert_eq!(read[0].field("value"), Some(&[0x92, 1, 2][..]));
        assert_eq!(read[1].field("timestamp"), Some(&[0xcf, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0][..]));
        assert_eq!(read[2].text("command"), Some("focus"));
        assert_eq!(read[3].field("timestamp").map(<[u8]>::len), Some(9));
        list.clear();
        assert!(list.is_empty() && list.payload().is_none());
    }
}
