//! JSON that people wrote: as serde_json reads it, but a key that stands twice in one object is a mistake, not the loss of
//! the first. The error has line and column, as all of serde_json's.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

/// Reads one value; nothing may follow it.
pub fn from_str(text: &str) -> Result<Json, serde_json::Error> {
    serde_json::from_str::<Once>(text).map(|Once(value)| value)
}

/// A value whose objects have each key once. How deep it may be is serde_json's own bound.
struct Once(Json);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("the key {key:?} stands twice")));
            }
            let Once(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        let text = r#" {"a": [1, -1, 0.5, 18446744073709551615, "x\u00e9", null, true, {"b": {}}], "c": 1e400} "#;
        assert!(from_str(text).is_err() && serde_json::from_str::<Json>(text).is_err(), "too large for a number");
        let text = text.replace("1e400", "1e4");
        assert_eq!(from_str(&text).unwrap(), serde_json::from_str::<Json>(&text).unwrap());
        for wrong in ["", "{", "[1,]", "1 2", "nul", &"[".repeat(200)] {
            assert!(from_str(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_with_its_place() {
        let error = from_str("{\"http.get\": [1],\n \"http.get\": [2]}").unwrap_err();
        assert_eq!(error.to_string(), "the key \"http.get\" stands twice at line 2 column 11");
        assert!(from_str(r#"[{"a": {"b": 1, "b": 1}}]"#).is_err());
        assert!(from_str(r#"[{"a": 1}, {"a": 1}]"#).is_ok());
    }
}
