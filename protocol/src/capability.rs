//! Capability tokens, and the set of grants of one execution (SPEC 3, execute).
//!
//! ```text
//! state:read:KEY  state:write:KEY  events:emit:NAME  view:update:ID      KEY, NAME, ID: any text, or * for all
//! ext:NAME        ext:NAME.METHOD  ext:*             crypto:random
//! ```
//!
//! A token is split at its first two colons (one for `ext`), so a name may hold colons; an extension's name ends at
//! its first dot. Invariants: an unknown token is an error, never ignored; an empty name is an error; `*` is a
//! wildcard only as the whole name. No token, no access.
//! What it does not do: enforce. The host side of the guest boundary asks.

use std::fmt;

use crate::limits::{MAX_CAPABILITIES, MAX_CAPABILITY_TOKEN_BYTES};

/// One thing, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope<'a> {
    /// `*`.
    All,
    /// That name.
    Name(&'a str),
}

impl<'a> Scope<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        match name {
            "" => None,
            "*" => Some(Self::All),
            name => Some(Self::Name(name)),
        }
    }
}

/// One token, understood. `Display` writes the token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Capability<'a> {
    /// Read state keys.
    StateRead(Scope<'a>),
    /// Write and delete state keys.
    StateWrite(Scope<'a>),
    /// Emit events.
    EventsEmit(Scope<'a>),
    /// Send view commands.
    ViewUpdate(Scope<'a>),
    /// Call every method of an extension, or of all.
    Extension(Scope<'a>),
    /// Call one method of one extension.
    ExtensionMethod {
        /// Extension.
        name: &'a str,
        /// Method.
        method: &'a str,
    },
    /// Use `crypto.getRandomValues`.
    CryptoRandom,
}

/// What a token may be, for people who wrote another one.
const FORMS: &str = "state:read:KEY, state:write:KEY, events:emit:NAME, view:update:ID, ext:NAME, ext:NAME.METHOD and crypto:random; \
                     with * for the name, all of them";

/// The token that was probably meant, where that is plain: the name of an extension or of its method alone.
fn hint(token: &str) -> String {
    let is_name = !token.is_empty() && token.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$' || c == '.');
    match Capability::parse(&format!("ext:{token}")) {
        Ok(_) if is_name => format!(" (an extension of that name: `ext:{token}`)"),
        _ => String::new(),
    }
}

/// Why a token, or a list of them, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// No such capability.
    #[error("unknown capability `{token}`{}; there are {FORMS}", hint(token))]
    Unknown {
        /// The token.
        token: String,
    },
    /// A known prefix with nothing behind it.
    #[error("capability `{token}` names nothing; there are {FORMS}")]
    EmptyName {
        /// The token.
        token: String,
    },
    /// Too long to be a name.
    #[error("a capability of {length_bytes} bytes, more than {MAX_CAPABILITY_TOKEN_BYTES}")]
    TooLong {
        /// Its length.
        length_bytes: usize,
    },
    /// More tokens than one execution may have.
    #[error("more than {MAX_CAPABILITIES} capabilities")]
    TooMany,
}

impl<'a> Capability<'a> {
    /// Understands one token.
    pub fn parse(token: &'a str) -> Result<Self, CapabilityError> {
        if token.len() > MAX_CAPABILITY_TOKEN_BYTES {
            return Err(CapabilityError::TooLong { length_bytes: token.len() });
        }
        let unknown = || CapabilityError::Unknown { token: token.to_owned() };
        let empty = || CapabilityError::EmptyName { token: token.to_owned() };
        if token == "crypto:random" {
            return Ok(Self::CryptoRandom);
        }
        let (domain, rest) = token.split_once(':').ok_or_else(unknown)?;
        if domain == "ext" {
            return match rest.split_once('.') {
                None => Scope::parse(rest).map(Self::Extension).ok_or_else(empty),
                Some(("", _) | (_, "")) => Err(empty()),
                // `*` within a name would look like a wildcard and be none.
                Some(("*", _) | (_, "*")) => Err(unknown()),
                Some((name, method)) => Ok(Self::ExtensionMethod { name, method }),
            };
        }
        let (action, name) = rest.split_once(':').ok_or_else(unknown)?;
        let capability = match (domain, action) {
            ("state", "read") => Self::StateRead,
            ("state", "write") => Self::StateWrite,
            ("events", "emit") => Self::EventsEmit,
            ("view", "update") => Self::ViewUpdate,
            _ => return Err(unknown()),
        };
        Scope::parse(name).map(capability).ok_or_else(empty)
    }

    /// The narrowest capability that a token can grant and that covers this one. There is no token for each name: not for an empty
    /// one, for `*`, for one that is too long, nor for an extension with a dot in its name.
    pub fn grantable(&self) -> Self {
        let has_token =
            |capability: &Self| Capability::parse(&capability.to_string()).is_ok_and(|read| read == *capability);
        match self {
            capability if has_token(capability) => capability.clone(),
            Self::StateRead(_) => Self::StateRead(Scope::All),
            Self::StateWrite(_) => Self::StateWrite(Scope::All),
            Self::EventsEmit(_) => Self::EventsEmit(Scope::All),
            Self::ViewUpdate(_) => Self::ViewUpdate(Scope::All),
            Self::ExtensionMethod { name, .. } => Self::Extension(Scope::Name(name)).grantable(),
            Self::Extension(_) => Self::Extension(Scope::All),
            Self::CryptoRandom => Self::CryptoRandom,
        }
    }
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Capability<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateRead(scope) => write!(f, "state:read:{scope}"),
            Self::StateWrite(scope) => write!(f, "state:write:{scope}"),
            Self::EventsEmit(scope) => write!(f, "events:emit:{scope}"),
            Self::ViewUpdate(scope) => write!(f, "view:update:{scope}"),
            Self::Extension(scope) => write!(f, "ext:{scope}"),
            Self::ExtensionMethod { name, method } => write!(f, "ext:{name}.{method}"),
            Self::CryptoRandom => f.write_str("crypto:random"),
        }
    }
}

/// What one execution may do. Made once per execution, asked at every host call; a question costs a binary search.
/// Owns its names, so that it can outlive the frame in a suspension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet {
    state_read: Names,
    state_write: Names,
    events_emit: Names,
    view_update: Names,
    extensions: Names,
    /// Sorted, without repetition.
    extension_methods: Vec<(Box<str>, Box<str>)>,
    crypto_random: bool,
}

impl CapabilitySet {
    /// Grants nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Understands every token, or refuses the list at the first that it does not.
    pub fn parse<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Result<Self, CapabilityError> {
        let mut set = Self::default();
        for (position, token) in tokens.into_iter().enumerate() {
            if position >= MAX_CAPABILITIES {
                return Err(CapabilityError::TooMany);
            }
            match Capability::parse(token.as_ref())? {
                Capability::StateRead(scope) => set.state_read.add(&scope),
                Capability::StateWrite(scope) => set.state_write.add(&scope),
                Capability::EventsEmit(scope) => set.events_emit.add(&scope),
                Capability::ViewUpdate(scope) => set.view_update.add(&scope),
                Capability::Extension(scope) => set.extensions.add(&scope),
                Capability::ExtensionMethod { name, method } => {
                    set.extension_methods.push((name.into(), method.into()));
                }
                Capability::CryptoRandom => set.crypto_random = true,
            }
        }
        for names in
            [&mut set.state_read, &mut set.state_write, &mut set.events_emit, &mut set.view_update, &mut set.extensions]
        {
            names.sort();
        }
        set.extension_methods.sort_unstable();
        set.extension_methods.dedup();
        Ok(set)
    }

    /// `state:read:key`.
    pub fn can_read_state(&self, key: &str) -> bool {
        self.state_read.has(key)
    }

    /// `state:read:*`.
    pub fn can_read_all_state(&self) -> bool {
        self.state_read.all
    }

    /// `state:write:key`.
    pub fn can_write_state(&self, key: &str) -> bool {
        self.state_write.has(key)
    }

    /// `events:emit:name`.
    pub fn can_emit(&self, name: &str) -> bool {
        self.events_emit.has(name)
    }

    /// `view:update:id`.
    pub fn can_update_view(&self, id: &str) -> bool {
        self.view_update.has(id)
    }

    /// `ext:extension`, or `ext:extension.method`.
    pub fn can_call(&self, extension: &str, method: &str) -> bool {
        self.extensions.has(extension)
            || self.extension_methods.binary_search_by(|(name, of)| (&**name, &**of).cmp(&(extension, method))).is_ok()
    }

    /// `crypto:random`.
    pub fn has_random(&self) -> bool {
        self.crypto_random
    }

    /// Whether the grants include all that `need` asks for. A need for `*` is covered by `*` alone.
    pub fn covers(&self, need: &Capability<'_>) -> bool {
        match need {
            Capability::StateRead(scope) => self.state_read.covers(scope),
            Capability::StateWrite(scope) => self.state_write.covers(scope),
            Capability::EventsEmit(scope) => self.events_emit.covers(scope),
            Capability::ViewUpdate(scope) => self.view_update.covers(scope),
            Capability::Extension(scope) => self.extensions.covers(scope),
            Capability::ExtensionMethod { name, method } => self.can_call(name, method),
            Capability::CryptoRandom => self.crypto_random,
        }
    }
}

/// The names granted of one sort. `names` is sorted and without repetition once the set is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: Vec<Box<str>>,
}

impl Names {
    fn add(&mut self, scope: &Scope<'_>) {
        match scope {
            Scope::All => self.all = true,
            Scope::Name(name) => self.names.push((*name).into()),
        }
    }

    fn sort(&mut self) {
        self.names.sort_unstable();
        self.names.dedup();
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.binary_search_by(|granted| (**granted).cmp(name)).is_ok()
    }

    fn covers(&self, scope: &Scope<'_>) -> bool {
        match scope {
            Scope::All => self.all,
            Scope::Name(name) => self.has(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tokens: &[&str]) -> CapabilitySet {
        CapabilitySet::parse(tokens).unwrap()
    }

    #[test]
    fn tokens_round_trip_and_names_may_hold_colons() {
        for token in [
            "state:read:user",
            "state:write:*",
            "events:emit:system:error",
            "view:update:a:b:c",
            "ext:http",
            "ext:*",
            "ext:http.get",
            "ext:a:b.c.d",
            "crypto:random",
            "state:read: ",
            "state:read:a*",
        ] {
            assert_eq!(Capability::parse(token).unwrap().to_string(), token);
        }
        assert_eq!(
            Capability::parse("events:emit:system:error"),
            Ok(Capability::EventsEmit(Scope::Name("system:error")))
        );
        assert_eq!(Capability::parse("ext:a:b.c.d"), Ok(Capability::ExtensionMethod { name: "a:b", method: "c.d" }));
    }

    #[test]
    fn what_has_no_token_is_granted_by_the_next_wider_one() {
        let long = "x".repeat(MAX_CAPABILITY_TOKEN_BYTES);
        let method = |name, method| Capability::ExtensionMethod { name, method };
        let name = |name| Scope::Name(name);
        for (need, token) in [
            (Capability::StateRead(name("a.b:c")), "state:read:a.b:c"),
            (Capability::StateRead(name("")), "state:read:*"),
            (Capability::StateWrite(name("*")), "state:write:*"),
            (Capability::EventsEmit(name(&long)), "events:emit:*"),
            (Capability::ViewUpdate(name("")), "view:update:*"),
            (method("http", "get"), "ext:http.get"),
            (method("http", "get.all"), "ext:http.get.all"),
            (method("http", ""), "ext:http"),
            (method("http", "*"), "ext:http"),
            (method("http", &long), "ext:http"),
            (method("a.b", "c"), "ext:*"),
            (method("", "c"), "ext:*"),
            (method("*", "c"), "ext:*"),
            (method(&long, "c"), "ext:*"),
            (Capability::CryptoRandom, "crypto:random"),
        ] {
            let grantable = need.grantable().to_string();
            assert_eq!(grantable, token);
            assert!(set(&[&grantable]).covers(&need), "{token} covers {need:?}");
        }
    }

    #[test]
    fn unknown_tokens_are_named() {
        for token in [
            "",
            "state",
            "state:read",
            "state:erase:k",
            "State:read:k",
            " state:read:k",
            "*",
            "ext",
            "fs:read:/etc",
            "crypto:random:x",
            "crypto:*",
            "ext:*.get",
            "ext:http.*",
            "events:emit",
            "view:read:x",
        ] {
            let error = Capability::parse(token).unwrap_err();
            assert_eq!(error, CapabilityError::Unknown { token: token.to_owned() });
            assert!(error.to_string().contains(FORMS), "{error}");
        }
        for token in ["state:read:", "events:emit:", "ext:", "ext:.get", "ext:http."] {
            assert_eq!(Capability::parse(token), Err(CapabilityError::EmptyName { token: token.to_owned() }));
        }
        assert!(CapabilitySet::parse(["state:read:a", "bad"]).is_err());
    }

    #[test]
    fn the_name_of_an_extension_alone_is_told_how_to_be_granted() {
        for (token, meant) in [("http", "`ext:http`"), ("http.get", "`ext:http.get`"), ("$a_1", "`ext:$a_1`")] {
            let message = Capability::parse(token).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("unknown capability `{token}` (")) && message.contains(meant),
                "{message}"
            );
        }
        for token in ["", "*", "fs:read:/etc", "http.", "a b", "ext:http.*"] {
            assert!(!Capability::parse(token).unwrap_err().to_string().contains("of that name"), "{token}");
        }
    }

    // shows P-tokens
    #[test]
    fn tokens_of_the_specification_mean_what_it_says() {
        let spec = include_str!("../SPEC.md");
        let rows: Vec<&str> = spec
            .lines()
            .skip_while(|line| *line != "| token | grants |")
            .skip(2)
            .take_while(|l| l.starts_with('|'))
            .collect();
        assert!(rows.len() >= 10, "{rows:?}");
        for row in rows {
            let cells: Vec<&str> = row.split('|').collect();
            let refused = cells[2].contains("refused");
            for token in cells[1].split('`').skip(1).step_by(2) {
                let parsed = Capability::parse(token);
                assert_eq!(parsed.is_err(), refused, "{token}: {parsed:?}");
                assert!(parsed.map_or(true, |parsed| parsed.to_string() == token));
            }
        }
        let grants = set(&["state:read:**", "state:read:a*", "ext:http:*", "ext:web.v2.get"]);
        assert!(grants.can_read_state("**") && grants.can_read_state("a*"));
        assert!(!grants.can_read_state("*") && !grants.can_read_state("ab") && !grants.can_read_all_state());
        assert!(
            grants.can_call("http:*", "get") && !grants.can_call("http", "get") && !grants.can_call("http:x", "get")
        );
        assert!(
            grants.can_call("web", "v2.get") && !grants.can_call("web.v2", "get") && !grants.can_call("web", "get")
        );
        assert!(set(&["ext:*"]).can_call("web.v2", "get"));
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let none = CapabilitySet::none();
        assert!(!none.can_read_state("a") && !none.can_write_state("a") && !none.can_emit("a"));
        assert!(
            !none.can_update_view("a") && !none.can_call("a", "b") && !none.has_random() && !none.can_read_all_state()
        );
    }

    #[test]
    fn a_grant_covers_its_name_and_nothing_near_it() {
        let grants = set(&["state:read:user", "state:read:app", "events:emit:*", "ext:http.get", "ext:db"]);
        assert!(grants.can_read_state("user") && grants.can_read_state("app"));
        assert!(!grants.can_read_state("use") && !grants.can_read_state("user2") && !grants.can_read_state("*"));
        assert!(!grants.can_write_state("user") && !grants.can_read_all_state());
        assert!(grants.can_emit("anything"));
        assert!(grants.can_call("http", "get") && !grants.can_call("http", "post"));
        assert!(grants.can_call("db", "query") && !grants.can_call("db2", "query"));
        assert!(set(&["ext:*"]).can_call("x", "y"));
    }

    #[test]
    fn each_grant_answers_its_own_question_and_no_other() {
        type Question = fn(&CapabilitySet) -> bool;
        // the question, and the grants that answer it
        let questions: [(Question, &[&str]); 9] = [
            (|g| g.can_read_state("k"), &["state:read:k", "state:read:*"]),
            (CapabilitySet::can_read_all_state, &["state:read:*"]),
            (|g| g.can_write_state("k"), &["state:write:k", "state:write:*"]),
            (|g| g.can_emit("k"), &["events:emit:k", "events:emit:*"]),
            (|g| g.can_update_view("k"), &["view:update:k", "view:update:*"]),
            (|g| g.can_call("k", "m"), &["ext:k", "ext:k.m", "ext:*"]),
            (|g| g.can_call("k", "n"), &["ext:k", "ext:*"]),
            (|g| g.can_call("l", "m"), &["ext:*"]),
            (CapabilitySet::has_random, &["crypto:random"]),
        ];
        let tokens = [
            "state:read:k",
            "state:read:*",
            "state:write:k",
            "state:write:*",
            "events:emit:k",
            "events:emit:*",
            "view:update:k",
            "view:update:*",
            "ext:k",
            "ext:k.m",
            "ext:*",
            "crypto:random",
        ];
        for token in tokens {
            let grants = set(&[token]);
            for (at, (question, answers)) in questions.iter().enumerate() {
                assert_eq!(question(&grants), answers.contains(&token), "{token}, question {at}");
            }
            // what is needed is covered by the same, and by `*` of its sort, and by nothing else
            for need in tokens {
                let sort = |token: &str| token.rsplit_once(':').map(|(sort, _)| sort.to_owned());
                let all = token.ends_with('*') && sort(token) == sort(need) || token == "ext:k" && need == "ext:k.m";
                let covers = grants.covers(&Capability::parse(need).unwrap());
                assert_eq!(covers, token == need || all, "{token} for {need}");
            }
        }
    }

    #[test]
    fn a_need_for_all_is_covered_by_all_alone() {
        let need = |token| Capability::parse(token).unwrap();
        let grants = set(&["state:read:a", "ext:http.get"]);
        assert!(grants.covers(&need("state:read:a")) && !grants.covers(&need("state:read:*")));
        assert!(grants.covers(&need("ext:http.get")) && !grants.covers(&need("ext:http")));
        assert!(set(&["state:read:*", "ext:http"]).covers(&need("ext:http.get")));
    }

    #[test]
    fn lists_and_tokens_are_bounded() {
        let long = format!("state:read:{}", "k".repeat(MAX_CAPABILITY_TOKEN_BYTES));
        assert!(matches!(Capability::parse(&long), Err(CapabilityError::TooLong { .. })));
        assert!(Capability::parse(&long[..MAX_CAPABILITY_TOKEN_BYTES]).is_ok());
        assert_eq!(CapabilitySet::parse(vec!["ext:a"; MAX_CAPABILITIES + 1]), Err(CapabilityError::TooMany));
        assert!(CapabilitySet::parse(vec!["ext:a"; MAX_CAPABILITIES]).is_ok());
    }
}
