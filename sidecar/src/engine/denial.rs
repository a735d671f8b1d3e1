//! What a handler is told of a host call that was refused: one sentence, and the capability that would have allowed it.
//!
//! The guest asks for both when it makes the error. So they are exact whatever the name is that the handler gave, and the token
//! in the error is the one that the host has written down.
//!
//! Invariants: a token that is named can be granted, and then the call is allowed; a sentence is at most [`MAX_SENTENCE_BYTES`]
//! long and has no U+0000, where the guest's texts end.

use std::fmt::Write;

use nexus_protocol::Capability;
use nexus_protocol::limits::{MAX_CAPABILITY_TOKEN_BYTES, MAX_NAME_BYTES};

/// Characters of a name that a sentence repeats beside the token.
const SAID_OF_A_NAME: usize = 60;
/// Longest sentence; the guest has room for it (`NX_REFUSAL_BYTES`).
#[cfg(test)]
const MAX_SENTENCE_BYTES: usize = MAX_CAPABILITY_TOKEN_BYTES + 512;
const _: () = assert!(MAX_CAPABILITY_TOKEN_BYTES + 512 < 2048);

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Key,
    Event,
    Extension,
    Method,
    View,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub sentence: String,
    /// Of a denial.
    pub token: Option<String>,
}

impl Named {
    fn word(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Event => "event",
            Self::Extension => "extension",
            Self::Method => "method",
            Self::View => "view",
        }
    }
}

impl Told {
    /// A capability is missing.
    pub fn denied(need: &Capability<'_>) -> Self {
        let grantable = need.grantable();
        let token = grantable.to_string();
        let mut sentence = format!("this needs the capability '{}', which was not granted", printable(&token));
        if grantable != *need {
            let _ = write!(sentence, "; none that is narrower can name {}", subject(need));
        }
        Self { sentence, token: Some(token) }
    }

    /// There is no such extension.
    pub fn no_extension(name: &str) -> Self {
        Self::of(format!("there is no extension '{}'", said(name)))
    }

    /// The extension has no such method.
    pub fn no_method(extension: &str, method: &str) -> Self {
        Self::of(format!("the extension '{}' has no method '{}'", said(extension), said(method)))
    }

    /// A name that is too long to be one.
    pub fn too_long(named: Named, bytes: usize) -> Self {
        let word = named.word();
        Self::of(format!(
            "the name of this {word} has {bytes} bytes, more than the {MAX_NAME_BYTES} of any: no grant can allow it"
        ))
    }

    /// A name that is not Unicode.
    pub fn no_text(named: Named) -> Self {
        let word = named.word();
        Self::of(format!(
            "the name of this {word} has half of a surrogate pair in it, which no text has: no grant can allow it"
        ))
    }

    fn of(sentence: String) -> Self {
        Self { sentence, token: None }
    }

    /// Memory that this takes.
    pub fn held_bytes(&self) -> u64 {
        (self.sentence.len() + self.token.as_ref().map_or(0, String::len)) as u64
    }
}

/// What a need is about, in words.
fn subject(need: &Capability<'_>) -> String {
    use nexus_protocol::capability::Scope;
    let name = |scope: &Scope<'_>| match scope {
        Scope::All => "all of them".to_owned(),
        Scope::Name(name) => format!("'{}'", said(name)),
    };
    match need {
        Capability::StateRead(scope) | Capability::StateWrite(scope) => format!("the key {}", name(scope)),
        Capability::EventsEmit(scope) => format!("the event {}", name(scope)),
        Capability::ViewUpdate(scope) => format!("the view {}", name(scope)),
        Capability::Extension(scope) => format!("the extension {}", name(scope)),
        Capability::ExtensionMethod { name, method } => format!("the method '{}' of '{}'", said(method), said(name)),
        _ => "this".to_owned(),
    }
}

fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A name as a sentence repeats it: where it is long, its beginning.
fn said(name: &str) -> String {
    let name = printable(name);
    match name.char_indices().nth(SAID_OF_A_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use nexus_protocol::capability::Scope;

    use super::*;

    #[test]
    fn a_denial_names_what_can_be_granted_and_why_nothing_narrower_can() {
        let long = "é".repeat(MAX_NAME_BYTES / 2);
        let read = |name| Told::denied(&Capability::StateRead(Scope::Name(name)));
        let call = |name, method| Told::denied(&Capability::ExtensionMethod { name, method });
        let plain = "this needs the capability 'state:read:user', which was not granted";
        assert_eq!(read("user"), Told { sentence: plain.into(), token: Some("state:read:user".into()) });
        for (told, token, why) in [
            (read(""), "state:read:*", "the key ''"),
            (read("*"), "state:read:*", "the key '*'"),
            (read(&long), "state:read:*", "the key 'éééé"),
            (call("a.b", "c"), "ext:*", "the method 'c' of 'a.b'"),
            (call("a", ""), "ext:a", "the method '' of 'a'"),
        ] {
            assert_eq!(told.token.as_deref(), Some(token));
            let begins = format!(
                "this needs the capability '{token}', which was not granted; none that is narrower can name {why}"
            );
            assert!(told.sentence.starts_with(&begins), "{told:?}");
        }
        assert_eq!(read("a\0b").token.as_deref(), Some("state:read:a\0b"));
        assert!(read("a\0b").sentence.contains("'state:read:a\u{fffd}b'"));
    }

    #[test]
    fn sentences_are_bounded() {
        let long = "\u{10ffff}".repeat(MAX_NAME_BYTES / 4);
        let most = "x".repeat(MAX_CAPABILITY_TOKEN_BYTES - "state:read:".len());
        for told in [
            Told::denied(&Capability::ExtensionMethod { name: &long, method: &long }),
            Told::denied(&Capability::StateRead(Scope::Name(&most))),
            Told::no_method(&long, &long),
            Told::too_long(Named::Extension, usize::MAX),
            Told::no_text(Named::Extension),
        ] {
            assert!(told.sentence.len() <= MAX_SENTENCE_BYTES, "{}", told.sentence.len());
        }
    }
}
