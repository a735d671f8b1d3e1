//! Payloads: one MessagePack value each, as bytes.
//!
//! Invariant: a clone shares the bytes. Numbers beyond 2^53-1 are BigInt in a handler (SPEC 5).

use std::fmt;
use std::io;
use std::sync::Arc;

use nexus_protocol::limits::{MAX_FRAME_BYTES_CEILING, MAX_PAYLOAD_DEPTH};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::told::Violation;

/// A value that a handler gets or gave: any type that serde knows, or bytes of MessagePack.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Arc<Vec<u8>>);

/// A value of this program that does not fit a payload, or the other way round.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The value cannot be written as MessagePack.
    #[error("the value cannot be written as MessagePack")]
    Encode(#[source] Arc<rmp_serde::encode::Error>),
    /// The payload is not what the type needs.
    #[error("the payload is not a {type_name}")]
    Decode {
        /// Type that was asked for.
        type_name: &'static str,
        /// Why.
        #[source]
        source: Arc<rmp_serde::decode::Error>,
    },
    /// The value takes more than a frame carries.
    #[error("the value takes more than {max_bytes} bytes as MessagePack")]
    TooLarge {
        /// So many would be carried.
        max_bytes: usize,
    },
    /// The bytes are no payload.
    #[error(transparent)]
    Malformed(Violation),
}

impl PayloadError {
    pub(crate) fn malformed(error: nexus_protocol::PayloadError) -> Self {
        Self::Malformed(Violation::new(error))
    }
}

impl Payload {
    /// Writes a value. Structs become maps with the names of their fields.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        Self::encode_within(value, MAX_FRAME_BYTES_CEILING as usize)
    }

    /// As [`encode`](Self::encode), of a value that may be larger than anybody has memory for: given up at `max_bytes`.
    pub(crate) fn encode_within<T: Serialize + ?Sized>(value: &T, max_bytes: usize) -> Result<Self, PayloadError> {
        let mut serializer =
            rmp_serde::Serializer::new(Bounded { bytes: Vec::new(), max_bytes, is_full: false }).with_struct_map();
        let encoded = value.serialize(&mut serializer);
        let Bounded { bytes, is_full, .. } = serializer.into_inner();
        match encoded {
            Ok(()) => Ok(Self(Arc::new(bytes))),
            Err(_) if is_full => Err(PayloadError::TooLarge { max_bytes }),
            Err(error) => Err(PayloadError::Encode(Arc::new(error))),
        }
    }

    /// Takes bytes that are MessagePack already. The sidecar refuses them if they are not.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }

    /// nil.
    pub fn nil() -> Self {
        Self::from_bytes(nexus_protocol::payload::NIL.to_vec())
    }

    /// Reads the value as a type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(self.as_bytes());
        // An Option counts as a level of its own.
        deserializer.set_max_depth(MAX_PAYLOAD_DEPTH * 2);
        T::deserialize(&mut deserializer)
            .map_err(|error| PayloadError::Decode { type_name: std::any::type_name::<T>(), source: Arc::new(error) })
    }

    /// The MessagePack.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Takes so many bytes, and then fails.
struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
    is_full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max_bytes.saturating_sub(self.bytes.len()) {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Payload {
    /// The length only: a payload is a user's data, and logs are not the place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Point {
        x: i32,
        label: Option<String>,
    }

    #[test]
    fn structs_travel_as_maps() {
        let payload = Payload::encode(&Point { x: 1, label: None }).unwrap();
        assert_eq!(payload.as_bytes(), b"\x82\xa1x\x01\xa5label\xc0");
        assert_eq!(payload.decode::<Point>().unwrap(), Point { x: 1, label: None });
    }

    #[test]
    fn a_value_is_given_up_as_soon_as_it_is_larger_than_allowed() {
        use std::cell::Cell;

        /// A list that says that it is short and is not.
        struct Endless<'a>(&'a Cell<u32>);
        impl Serialize for Endless<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq;
                let mut list = serializer.serialize_seq(Some(1))?;
                loop {
                    self.0.set(self.0.get() + 1);
                    list.serialize_element(&[0u8; 100][..])?;
                }
            }
        }
        let items = Cell::new(0);
        let error = Payload::encode_within(&Endless(&items), 10_000).unwrap_err();
        assert!(matches!(error, PayloadError::TooLarge { max_bytes: 10_000 }), "{error}");
        assert!(items.get() <= 100);
        let exact = Payload::encode_within(&[0u8; 10], 11).unwrap();
        assert_eq!((exact.as_bytes().len(), Payload::encode_within(&[0u8; 10], 10).is_err()), (11, true));
    }

    #[test]
    fn another_type_is_an_error_that_names_it() {
        let error = Payload::encode(&"text").unwrap().decode::<u32>().unwrap_err();
        assert_eq!(error.to_string(), "the payload is not a u32");
    }
}
