//! Values as handlers know them: what comes out of one can be held whatever it is, and goes back in as it came.
//!
//! Invariant: a value that is read from a [`Payload`](crate::Payload) and written again is the same to a handler.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};

use crate::date::Date;

/// Any value of a handler. Reads and writes itself by serde: `outcome.value::<Value>()`, `context.args(&value)`.
///
/// ```
/// # use nexus_client::{Date, Payload, Value};
/// let value = Value::from_iter([("at", Value::from(Date::from_millis(0))), ("n", Value::from(u64::MAX))]);
/// let back: Value = Payload::encode(&value).unwrap().decode().unwrap();
/// assert_eq!(back, value);
/// assert_eq!(back.get("at").and_then(Value::as_date), Some(Date::from_millis(0)));
/// assert_eq!(serde_json::Value::from(back).to_string(), r#"{"at":"1970-01-01T00:00:00.000Z","n":18446744073709551615}"#);
/// ```
///
/// `From` turns it into a [`serde_json::Value`], which has fewer kinds of values. What is lost: a `Date` becomes text (as
/// `toISOString` writes it), bytes a list of numbers, a float that is not finite null, and where serde_json is built without
/// `preserve_order`, maps their order. The way back makes of each what it is in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `null`, and `undefined`.
    #[default]
    Nil,
    /// A boolean.
    Bool(bool),
    /// A Number that is an integer, or a BigInt (beyond 2^53 - 1). Of more than 64 bits it cannot be sent.
    Integer(i128),
    /// A Number that is none.
    Float(f64),
    /// A string.
    Text(String),
    /// A Uint8Array.
    Bytes(Vec<u8>),
    /// A Date.
    Date(Date),
    /// An Array.
    List(Vec<Value>),
    /// An object, in the order of its keys. Of a key that is there twice the last one counts.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Whether it is nil.
    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// An integer.
    pub fn as_integer(&self) -> Option<i128> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }

    /// A number of either kind, as near as a float comes.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// A date.
    pub fn as_date(&self) -> Option<Date> {
        if let Self::Date(date) = self { Some(*date) } else { None }
    }

    /// The items of a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// The entries of a map.
    pub fn as_map(&self) -> Option<&[(String, Value)]> {
        if let Self::Map(entries) = self { Some(entries) } else { None }
    }

    /// A field of a map.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map()?.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// An item of a list.
    pub fn at(&self, position: usize) -> Option<&Value> {
        self.as_list()?.get(position)
    }

    /// As the key of a map, where it can be one (SPEC 5).
    fn into_key(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Integer(value) => Some(value.to_string()),
            Self::Float(value) => Some(value.to_string()),
            Self::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident;)*) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from! {
    bool => Bool;
    i8 => Integer;
    i16 => Integer;
    i32 => Integer;
    i64 => Integer;
    u16 => Integer;
    u32 => Integer;
    u64 => Integer;
    f32 => Float;
    f64 => Float;
    &str => Text;
    String => Text;
    Date => Date;
    Vec<Value> => List;
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Self::Nil
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nil, T::into)
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match number.as_i128() {
                Some(value) => Self::Integer(value),
                None => number.as_f64().map_or(Self::Nil, Self::Float),
            },
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(entries) => entries.into_iter().collect(),
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Nil => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            // Beyond 64 bits, which no handler has.
            Value::Integer(value) => serde_json::Number::from_i128(value).map_or(Self::Null, Self::Number),
            Value::Float(value) => serde_json::Number::from_f64(value).map_or(Self::Null, Self::Number),
            Value::Text(text) => Self::String(text),
            Value::Bytes(bytes) => bytes.into(),
            Value::Date(date) => Self::String(date.to_string()),
            Value::List(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Map(entries) => entries.into_iter().map(|(key, value)| (key, Self::from(value))).collect(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_i64(value),
                (_, Ok(value)) => serializer.serialize_u64(value),
                _ => Err(S::Error::custom("an integer of more than 64 bits")),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Date(date) => date.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

/// At most so many places are made for what a list or map says of its own length.
const RESERVED: usize = 1024;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a handler")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Date::from_extension(deserializer).map(Value::Date)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(RESERVED));
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::with_capacity(entries.size_hint().unwrap_or(0).min(RESERVED));
        while let Some((key, value)) = entries.next_entry::<Value, Value>()? {
            map.push((key.into_key().ok_or_else(|| A::Error::custom("a key that is no text"))?, value));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    fn every_kind() -> Value {
        Value::from_iter([
            ("z", Value::Nil),
            ("bool", true.into()),
            ("small", (-1).into()),
            ("least", i64::MIN.into()),
            ("most", u64::MAX.into()),
            ("float", 0.5.into()),
            ("text", "ü\u{1f600}".into()),
            ("bytes", Value::Bytes(vec![0, 255])),
            ("date", Date::from_millis(-1).into()),
            ("list", vec![1.into(), Value::List(vec![])].into()),
            ("a", Value::Map(vec![])),
        ])
    }

    #[test]
    fn every_kind_of_value_goes_in_and_comes_out_in_its_order() {
        let payload = Payload::encode(&every_kind()).unwrap();
        assert_eq!(payload.decode::<Value>().unwrap(), every_kind());
        assert!(Payload::encode(&Value::Integer(1 << 64)).is_err());
    }

    #[test]
    fn json_gets_what_it_can_hold() {
        let json = serde_json::Value::from(every_kind());
        assert_eq!(json["date"], "1969-12-31T23:59:59.999Z");
        assert_eq!(json["bytes"], serde_json::json!([0, 255]));
        assert_eq!((json["least"].as_i64(), json["most"].as_u64()), (Some(i64::MIN), Some(u64::MAX)));
        assert_eq!(serde_json::Value::from(Value::Float(f64::NAN)), serde_json::Value::Null);
        let back = Value::from(json);
        for key in ["z", "bool", "small", "least", "most", "float", "text", "list", "a"] {
            assert_eq!(back.get(key), every_kind().get(key), "{key}");
        }
        let read: Value = serde_json::from_str(r#"{"n":18446744073709551615,"f":1.5}"#).unwrap();
        assert_eq!(
            (read.get("n").unwrap().as_integer(), read.get("f").unwrap().as_f64()),
            (Some(u64::MAX.into()), Some(1.5))
        );
    }

    #[test]
    fn keys_that_are_no_texts_have_their_text_and_the_last_of_a_kind_counts() {
        let map = Payload::from_bytes(b"\x84\x01\xa1a\xc3\xa1b\xa1k\x01\xa1k\x02".to_vec());
        let value: Value = map.decode().unwrap();
        assert_eq!(value.get("1").and_then(Value::as_str), Some("a"));
        assert_eq!(value.get("true").and_then(Value::as_str), Some("b"));
        assert_eq!(value.get("k").and_then(Value::as_integer), Some(2));
        assert!(Payload::from_bytes(b"\x81\xc0\x01".to_vec()).decode::<Value>().is_err());
        assert!(
            Payload::from_bytes(b"\xd4\x05\x00".to_vec()).decode::<Value>().is_err(),
            "an extension that is no date"
        );
    }
}
