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
    /// A method that this extension does not have.
    MethodOf(String),
}

impl Refusal {
    fn text(&self) -> &str {
        match self {
            Self::Capability(text) | Self::Extension(text) | Self::MethodOf(text) => text,
        }
    }
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

    /// The code of the refusal that an error claims to be about, if there was that refusal. `capability`, `extension`: what
    /// the error names.
    pub fn confirm(&self, code: &str, capability: Option<&str>, extension: Option<&str>) -> Option<ErrorCode> {
        let (code, claimed) = match code {
            "PERMISSION_DENIED" => (ErrorCode::PermissionDenied, Refusal::Capability(capability?.to_owned())),
            "EXTENSION_NOT_FOUND" => (ErrorCode::ExtensionNotFound, Refusal::Extension(extension?.to_owned())),
            "METHOD_NOT_FOUND" => (ErrorCode::MethodNotFound, Refusal::MethodOf(extension?.to_owned())),
            _ => return None,
        };
        self.0.contains(&claimed).then_some(code)
    }

    /// Memory that this takes.
    pub fn held_bytes(&self) -> u64 {
        self.0.iter().map(|refusal| (size_of::<Refusal>() + refusal.text().len()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_is_confirmed() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.confirm("PERMISSION_DENIED", Some("state:read:a"), None), None);
        refusals.note(Refusal::Capability("state:read:a".into()));
        refusals.note(Refusal::Extension("x".into()));
        refusals.note(Refusal::MethodOf("y".into()));
        let confirm = |code, text| refusals.confirm(code, Some(text), Some(text));
        assert_eq!(confirm("PERMISSION_DENIED", "state:read:a"), Some(ErrorCode::PermissionDenied));
        assert_eq!(confirm("EXTENSION_NOT_FOUND", "x"), Some(ErrorCode::ExtensionNotFound));
        assert_eq!(confirm("METHOD_NOT_FOUND", "y"), Some(ErrorCode::MethodNotFound));
        for (code, text) in [
            ("PERMISSION_DENIED", "state:read:b"),
            ("PERMISSION_DENIED", "x"),
            ("EXTENSION_NOT_FOUND", "y"),
            ("METHOD_NOT_FOUND", "x"),
            ("SERIALIZATION_ERROR", "x"),
        ] {
            assert_eq!(confirm(code, text), None, "{code} {text}");
        }
        assert_eq!(refusals.confirm("PERMISSION_DENIED", None, Some("x")), None, "it names none");
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
        let confirm = |i: usize| refusals.confirm("PERMISSION_DENIED", Some(&name(i)), None).is_some();
        assert!(!confirm(0) && confirm(1) && confirm(MAX_REMEMBERED_REFUSALS));
    }
}
