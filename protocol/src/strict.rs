//! Field types that accept exactly what SPEC.md says.
//!
//! serde and rmp-serde are generous: a str for a bin, a bin for a str, an array for a struct, an index for a key. What
//! one peer sends by mistake and the other accepts becomes part of the protocol; so it is refused here.
//!
//! Invariant: strs and bins borrow from the frame. nil in an optional field means absent.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ContextValue;

pub(crate) fn text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<&'a str, D::Error> {
    Text::deserialize(deserializer).map(|text| text.0)
}

pub(crate) fn opt_text<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a str>, D::Error> {
    Option::<Text<'a>>::deserialize(deserializer).map(|text| text.map(|text| text.0))
}

pub(crate) fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer).map(str::to_owned)
}

pub(crate) fn opt_box_str<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    opt_text(deserializer).map(|text| text.map(Box::from))
}

pub(crate) fn texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a str>, D::Error> {
    let texts = Option::<Vec<Text<'a>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(texts.into_iter().map(|text| text.0).collect())
}

/// An optional bool; absent = false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An optional array of str in which absent and empty differ.
pub(crate) fn opt_texts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<&'a str>>, D::Error> {
    let texts = Option::<Vec<Text<'a>>>::deserialize(deserializer)?;
    Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
}

pub(crate) fn bin<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<&'a [u8], D::Error> {
    Bin::deserialize(deserializer).map(|bin| bin.0)
}

pub(crate) fn opt_bin<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a [u8]>, D::Error> {
    Option::<Bin<'a>>::deserialize(deserializer).map(|bin| bin.map(|bin| bin.0))
}

/// A struct that is a map on the wire, never an array.
pub(crate) fn map<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    MapOf::deserialize(deserializer).map(|map| map.0)
}

pub(crate) fn opt_map<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::<MapOf<T>>::deserialize(deserializer).map(|map| map.map(|map| map.0))
}

pub(crate) fn opt_boxed_map<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Box<T>>, D::Error> {
    opt_map(deserializer).map(|map| map.map(Box::new))
}

/// An optional array of structs; absent = empty.
pub(crate) fn maps<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let maps = Option::<Vec<MapOf<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(maps.into_iter().map(|map| map.0).collect())
}

/// `map str -> u64`, in the order of the wire.
pub(crate) fn counts<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(&'a str, u64)>, D::Error> {
    Pairs::deserialize(deserializer).map(|pairs| pairs.0)
}

/// The optional `map str -> array of str` of extensions.
#[allow(clippy::type_complexity, reason = "it is the type of one field")]
pub(crate) fn opt_extensions<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<(&'a str, Vec<&'a str>)>>, D::Error> {
    let pairs = Option::<Pairs<'a, Vec<Text<'a>>>>::deserialize(deserializer)?;
    Ok(pairs.map(|pairs| {
        let untext =
            |(name, methods): (&'a str, Vec<Text<'a>>)| (name, methods.into_iter().map(|text| text.0).collect());
        pairs.0.into_iter().map(untext).collect()
    }))
}

/// The optional `map str -> str or u64` of an error.
pub(crate) fn context<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, ContextValue>, D::Error> {
    let pairs = Option::<Pairs<'de, ContextValue>>::deserialize(deserializer)?;
    let pairs = pairs.map(|pairs| pairs.0).unwrap_or_default();
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Writes pairs as a map.
pub(crate) fn write_pairs<V: Serialize, S: Serializer>(pairs: &[(&str, V)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

/// [`write_pairs`] for an optional field that is there.
pub(crate) fn write_opt_pairs<V: Serialize, S: Serializer>(
    pairs: &Option<Vec<(&str, V)>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    write_pairs(pairs.as_deref().unwrap_or_default(), serializer)
}

pub(crate) struct Text<'a>(pub(crate) &'a str);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = &'de str;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a str")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<&'de str, E> {
                Ok(text)
            }
        }

        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

struct Bin<'a>(&'a [u8]);

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BinVisitor;

        impl<'de> Visitor<'de> for BinVisitor {
            type Value = &'de [u8];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a bin")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
                Ok(bytes)
            }
        }

        deserializer.deserialize_bytes(BinVisitor).map(Bin)
    }
}

struct MapOf<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOf<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for MapVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(MapVisitor(PhantomData)).map(MapOf)
    }
}

struct Pairs<'a, V>(Vec<(&'a str, V)>);

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Pairs<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
            type Value = Vec<(&'de str, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map with str keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // The size of the map is a claim: the list grows with the entries that are there.
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    pairs.push((key.0, map.next_value()?));
                }
                Ok(pairs)
            }
        }

        let pairs = deserializer.deserialize_map(PairsVisitor(PhantomData))?;
        Ok(Self(pairs))
    }
}

impl<'de> Deserialize<'de> for ContextValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContextVisitor;

        impl<'de> Visitor<'de> for ContextVisitor {
            type Value = ContextValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a str or a u64")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<ContextValue, E> {
                Ok(ContextValue::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<ContextValue, E> {
                Ok(ContextValue::Number(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<ContextValue, E> {
                u64::try_from(number).map(ContextValue::Number).map_err(|_| E::custom("a negative figure in an error"))
            }
        }

        deserializer.deserialize_any(ContextVisitor)
    }
}

/// Optional bins: `serde_bytes` writes them, this module reads them.
pub(crate) mod bins {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bin: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(bin, serializer)
    }

    pub(crate) fn deserialize<'de: 'a, 'a, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<&'a [u8]>, D::Error> {
        super::opt_bin(deserializer)
    }
}

/// [`bins`] that are kept longer than the frame.
pub(crate) mod owned_bins {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bin: &Option<Box<[u8]>>, serializer: S) -> Result<S::Ok, S::Error> {
        super::bins::serialize(&bin.as_deref(), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<[u8]>>, D::Error> {
        super::opt_bin(deserializer).map(|bin| bin.map(Box::from))
    }
}
