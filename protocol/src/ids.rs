//! Identifiers on the wire.
//!
//! Invariant: a `SuspensionId` is a bearer secret; `Debug` shows only its first four bytes, so that a log line cannot
//! be used to resume. What it does not do: draw random bytes (the sidecar does) or look anything up.

use std::fmt;
use std::str::FromStr;

use crate::limits::SUSPENSION_ID_BYTES;

/// Id of a request, chosen by the client and unique among its unanswered ones. 0 speaks of the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

impl RequestId {
    /// Id of hello, and of errors that belong to no request.
    pub const CONNECTION: Self = Self(0);

    /// Whether a client may use it for a request.
    pub const fn is_request(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One outstanding extension call. Text form: 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SuspensionId(pub [u8; SUSPENSION_ID_BYTES]);

impl SuspensionId {
    /// Length of the text form.
    pub const TEXT_BYTES: usize = 32;
}

impl fmt::Display for SuspensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SuspensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SuspensionId(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// Not 32 hex digits. A peer hears SUSPENSION_ERROR, as for an unknown id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a suspension id is 32 lower-case hex digits")]
pub struct SuspensionIdError;

impl FromStr for SuspensionId {
    type Err = SuspensionIdError;

    /// Accepts exactly what `Display` writes: one text per id, so that text and id can both be keys.
    fn from_str(text: &str) -> Result<Self, SuspensionIdError> {
        if text.len() != Self::TEXT_BYTES {
            return Err(SuspensionIdError);
        }
        let mut bytes = [0; SUSPENSION_ID_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(SuspensionIdError) };
            *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

/// One resident state. Text form: 32 lower-case hex digits. Random, so that a handle of a sidecar that has gone is not one
/// of the next; no secret, since only its own connection can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub [u8; SUSPENSION_ID_BYTES]);

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SuspensionId(self.0).fmt(f)
    }
}

impl FromStr for StateId {
    type Err = SuspensionIdError;

    fn from_str(text: &str) -> Result<Self, SuspensionIdError> {
        text.parse().map(|SuspensionId(bytes)| Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Result<u8, SuspensionIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Ok(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => Err(SuspensionIdError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let id = SuspensionId(std::array::from_fn(|i| (i * 17) as u8));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "00",
            "00112233445566778899AABBCCDDEEFF",
            "0x112233445566778899aabbccddeeff",
            "zz112233445566778899aabbccddeeff",
        ] {
            assert_eq!(text.parse::<SuspensionId>(), Err(SuspensionIdError), "{text}");
        }
        assert!("é112233445566778899aabbccddeeff".parse::<SuspensionId>().is_err());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", SuspensionId([0xab; 16])), "SuspensionId(abababab..)");
    }
}
