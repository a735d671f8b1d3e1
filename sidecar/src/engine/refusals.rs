//! What the host has refused to an execution, as far as an error may claim it.
//!
//! The guest describes how a handler failed, and a handler can throw an object with any code. Whether the host has refused
//! something is for the host to know: an error's claim counts if it names a refusal that is written down here.

use std::collections::VecDeque;

use nexus_protocol::ErrorCode;
use nexus_protocol::limits::MAX_REMEMBERED_REFUSALS;

/// One thing that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A capability that is missing, as a token.
    Capability(String),
    /// An extension that the client does not have, by name.
    Extension(String),
    /// A method that an extension does not have.
    Method { extension: String, method: String },
}

impl Refusal {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Capability(text) | Self::Extension(text) => text.len(),
            Self::Method { extension, method } => extension.len() + method.len(),
        }
    }
}

/// What an error says that it is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    pub code: &'a str,
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
