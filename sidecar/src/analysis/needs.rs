//! The capabilities that a handler was seen to need, as tokens.
//!
//! A need is certain if the handler fails without the grant whenever it runs, as far as its text tells: the name is written
//! out, and so is the way there. `if (x) $state.a = 1` may need `state:write:a`; `$state[k]` needs one name that only the run
//! knows, and stands as `state:read:*`. A read of a key that the text also writes is not certain: what a handler has written it
//! may read. Nor is an optional call. Who grants all of them, the uncertain ones too, has granted enough.
//! Invariants: every token parses as a capability; sorted, each once; a token's position is that of its first use, or of
//! its first certain use if it has one. More than `MAX_CAPABILITIES` tokens are not listed one by one: the wildcards of
//! their kinds stand for the rest.

use std::collections::BTreeMap;

use nexus_protocol::Capability;
use nexus_protocol::limits::{MAX_CAPABILITIES, MAX_CAPABILITY_TOKEN_BYTES};

use super::path::Step;

/// What a need is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    StateRead,
    StateWrite,
    Emit,
    View,
    Extension,
}

impl Kind {
    fn prefix(self) -> &'static str {
        match self {
            Self::StateRead => "state:read:",
            Self::StateWrite => "state:write:",
            Self::Emit => "events:emit:",
            Self::View => "view:update:",
            Self::Extension => "ext:",
        }
    }
}

/// One need: its first place, and whether it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) position: u32,
    pub(super) certain: bool,
}

#[derive(Default)]
pub(super) struct Needs(BTreeMap<String, Need>);

impl Needs {
    /// A name that is known.
    pub(super) fn name(&mut self, kind: Kind, name: &str, need: Need) {
        // not copied first: one long name may be used many times
        if name.len() > MAX_CAPABILITY_TOKEN_BYTES {
            return self.all(kind, Need { certain: false, ..need });
        }
        let token = format!("{}{name}", kind.prefix());
        // `*` as a name, empty or overlong names: no token says that
        if name == "*" || Capability::parse(&token).is_err() {
            return self.all(kind, Need { certain: false, ..need });
        }
        if self.0.len() >= MAX_CAPABILITIES - 8 && !self.0.contains_key(&token) {
            return self.all(kind, Need { certain: false, ..need });
        }
        self.add(token, need);
    }

    /// One method of an extension. An extension whose name has a dot cannot be told from another's method.
    pub(super) fn method(&mut self, extension: &str, method: &str, need: Need) {
        if extension.len().max(method.len()) > MAX_CAPABILITY_TOKEN_BYTES || extension.contains('.') {
            return self.all(Kind::Extension, Need { certain: false, ..need });
        }
        self.name(Kind::Extension, &format!("{extension}.{method}"), need);
    }

    /// Every name of that kind.
    pub(super) fn all(&mut self, kind: Kind, need: Need) {
        self.add(format!("{}*", kind.prefix()), need);
    }

    /// A key of the state, if it is known.
    pub(super) fn key(&mut self, kind: Kind, key: &Step<'_>, need: Need) {
        match key.name() {
            Some(name) => self.name(kind, name, need),
            None => self.all(kind, Need { certain: false, ..need }),
        }
    }

    /// Whatever there is may be used.
    pub(super) fn everything(&mut self, position: u32) {
        let need = Need { position, certain: false };
        for kind in [Kind::StateRead, Kind::StateWrite, Kind::Emit, Kind::View, Kind::Extension] {
            self.all(kind, need);
        }
        self.random(need);
    }

    /// Whether extensions may be called.
    pub(super) fn any_extension(&self) -> bool {
        self.0.range("ext:".to_owned()..).next().is_some_and(|(token, _)| token.starts_with("ext:"))
    }

    pub(super) fn random(&mut self, need: Need) {
        self.add("crypto:random".into(), need);
    }

    /// What a handler has written it may read: a read of a key that it writes, or may write, is not certain. All keys
    /// together are never its own.
    pub(super) fn doubt_reads_of_what_is_written(&mut self) {
        let (read, write) = (Kind::StateRead.prefix(), Kind::StateWrite.prefix());
        let written: Vec<String> =
            self.0.keys().filter_map(|token| Some(token.strip_prefix(write)?.to_owned())).collect();
        let any = written.iter().any(|key| key == "*");
        for (token, need) in &mut self.0 {
            let Some(key) = token.strip_prefix(read).filter(|key| *key != "*") else { continue };
            need.certain &= !any && written.binary_search_by(|known| known.as_str().cmp(key)).is_err();
        }
    }

    pub(super) fn into_tokens(self) -> impl Iterator<Item = (String, Need)> {
        self.0.into_iter()
    }

    fn add(&mut self, token: String, need: Need) {
        let known = self.0.entry(token).or_insert(need);
        if need.certain && !known.certain {
            *known = need;
        }
    }
}
