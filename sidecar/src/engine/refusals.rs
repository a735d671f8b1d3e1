//! What the host has refused to an execution, as far as an error may claim it.
//!
//! The guest describes how a handler failed, and a handler can throw an object with any code. Whether the host has refused
//! something is for the host to know: an error's claim counts if it names a refusal that is written down here. So does what a client
//! says of an answer that it could not send.

use std::collections::VecDeque;

use nexus_protocol::ErrorCode;
use nexus_protocol::limits::{MAX_NAME_BYTES, MAX_REMEMBERED_REFUSALS};

/// One thing that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A capability that is missing, as a token.
    Capability(String),
    /// An extension that the client does not have, by name.
    Extension(String),
    /// A method that an extension does not have.
    Method { extension: String, method: String },
    /// An answer that could not be encoded, by the beginning of what its client says of it.
    Answer(String),
}

/// How much of a message tells it from others.
const COMPARED: usize = MAX_NAME_BYTES;

const SERIALIZATION_ERROR: &str = "SERIALIZATION_ERROR";

impl Refusal {
    /// By a client's `{message, name?, code?}`: None, if it is about anything else.
    pub fn of_answer(failure: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Failure<'a> {
            message: &'a str,
            code: Option<&'a str>,
        }
        let failure: Failure<'_> = rmp_serde::from_slice(failure).ok()?;
        (failure.code? == SERIALIZATION_ERROR).then(|| Self::answer(failure.message))
    }

    fn answer(message: &str) -> Self {
        Self::Answer(message.get(..message.floor_char_boundary(COMPARED)).unwrap_or_default().to_owned())
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Capability(text) | Self::Extension(text) | Self::Answer(text) => text.len(),
            Self::Method { extension, method } => extension.len() + method.len(),
        }
    }
}

/// What an error says that it is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    pub code: &'a str,
    pub message: &'a str,
    pub capability: Option<&'a str>,
    pub extension: Option<&'a str>,
    pub method: Option<&'a str>,
}

/// The last of them, each once. An error that nobody caught is as a rule about the very last.
#[derive(Clone, Debug, Default)]
pub struct Refusals(VecDeque<Refusal>);

impl Refusals {
    pub fn note(&mut self, refusal: Refusal) {
        if self.0.contains(&refusal) {
            return;
        }
        if self.0.len() == MAX_REMEMBERED_REFUSALS {
            self.0.pop_front();
        }
        self.0.push_back(refusal);
    }

    /// The code of the refusal that an error claims to be about, if there was that very refusal.
    pub fn confirm(&self, claim: &Claim<'_>) -> Option<ErrorCode> {
        let text = |claimed: Option<&str>| claimed.map(str::to_owned);
        let (code, claimed) = match claim.code {
            "PERMISSION_DENIED" => (ErrorCode::PermissionDenied, Refusal::Capability(text(claim.capability)?)),
            "EXTENSION_NOT_FOUND" => (ErrorCode::ExtensionNotFound, Refusal::Extension(text(claim.extension)?)),
            "METHOD_NOT_FOUND" => {
                let (extension, method) = (text(claim.extension)?, text(claim.method)?);
                (ErrorCode::MethodNotFound, Refusal::Method { extension, method })
            }
            SERIALIZATION_ERROR => (ErrorCode::SerializationError, Refusal::answer(claim.message)),
            _ => return None,
        };
        self.0.contains(&claimed).then_some(code)
    }

    /// Memory that this takes.
    pub fn held_bytes(&self) -> u64 {
        self.0.iter().map(|refusal| (size_of::<Refusal>() + refusal.text_bytes()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_is_confirmed() {
        let mut refusals = Refusals::default();
        let read = Claim { code: "PERMISSION_DENIED", capability: Some("state:read:a"), ..Claim::default() };
        let extension = Claim { code: "EXTENSION_NOT_FOUND", extension: Some("x"), ..Claim::default() };
        let method = Claim { code: "METHOD_NOT_FOUND", extension: Some("y"), method: Some("m"), ..Claim::default() };
        for claim in [read, extension, method] {
            assert_eq!(refusals.confirm(&claim), None, "{claim:?}");
        }
        refusals.note(Refusal::Capability("state:read:a".into()));
        refusals.note(Refusal::Extension("x".into()));
        refusals.note(Refusal::Method { extension: "y".into(), method: "m".into() });
        assert_eq!(refusals.confirm(&read), Some(ErrorCode::PermissionDenied));
        assert_eq!(refusals.confirm(&extension), Some(ErrorCode::ExtensionNotFound));
        assert_eq!(refusals.confirm(&method), Some(ErrorCode::MethodNotFound));
        for claim in [
            Claim { capability: Some("state:read:b"), ..read },
            Claim { capability: None, extension: Some("x"), ..read },
            Claim { extension: Some("y"), ..extension },
            Claim { method: Some("other"), ..method },
            Claim { method: None, ..method },
            Claim { extension: Some("x"), ..method },
            Claim { code: "SERIALIZATION_ERROR", ..method },
        ] {
            assert_eq!(refusals.confirm(&claim), None, "{claim:?}");
        }
    }

    #[test]
    fn an_answer_that_could_not_be_sent_is_confirmed_by_what_is_said_of_it() {
        let failure = |code: &str, message: &str| {
            let told = serde_json::json!({"message": message, "name": "E", "code": code});
            Refusal::of_answer(&rmp_serde::to_vec_named(&told).unwrap())
        };
        let long = "é".repeat(COMPARED);
        let mut refusals = Refusals::default();
        for message in ["it has a cycle", &long] {
            let claim = Claim { code: SERIALIZATION_ERROR, message, ..Claim::default() };
            assert_eq!(refusals.confirm(&claim), None);
            refusals.note(failure(SERIALIZATION_ERROR, message).unwrap());
            assert_eq!(refusals.confirm(&claim), Some(ErrorCode::SerializationError));
            assert_eq!(refusals.confirm(&Claim { message: "another", ..claim }), None);
        }
        assert!(refusals.held_bytes() < 3 * MAX_NAME_BYTES as u64);
        assert_eq!(failure("MINE", "x"), None);
        for other in [&b"\xc0"[..], b"", b"\x81\xa7message\x01", b"\xa1x"] {
            assert_eq!(Refusal::of_answer(other), None);
        }
    }

    #[test]
    fn they_are_bounded_and_the_last_ones_stay() {
        let mut refusals = Refusals::default();
        let name = |i: usize| format!("state:read:{i}");
        for i in 0..=MAX_REMEMBERED_REFUSALS {
            refusals.note(Refusal::Capability(name(i)));
            refusals.note(Refusal::Capability(name(i)));
        }
        assert_eq!(refusals.0.len(), MAX_REMEMBERED_REFUSALS);
        let confirm = |i: usize| {
            let claim = Claim { code: "PERMISSION_DENIED", capability: Some(&name(i)), ..Claim::default() };
            refusals.confirm(&claim).is_some()
        };
        assert!(!confirm(0) && confirm(1) && confirm(MAX_REMEMBERED_REFUSALS));
    }
}
