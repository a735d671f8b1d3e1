//! The error map that the wire carries (SPEC 4), and what its codes mean.
//!
//! Invariants: numbers are never reused; the wire carries names; every text in a [`WireError`] is bounded, however
//! long the handler's was. What it does not do: decide what a client may see (the sidecar leaves `stack` and `snippet`
//! out without `debug`).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::code::ErrorCode;
use crate::inner::InnerError;
use crate::limits::{MAX_ERROR_MESSAGE_BYTES, MAX_ERROR_STACK_BYTES};
use crate::strict;

/// Who has to do something about an error. The hundreds of the code's number say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The program that sent the request.
    Client,
    /// The handler.
    Guest,
    /// A bound was reached.
    Limit,
    /// The sidecar or its machine.
    Host,
}

impl ErrorCode {
    /// The number for logs and metrics.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Who has to act.
    pub const fn fault(self) -> Fault {
        match self.number() {
            100..=299 => Fault::Client,
            300..=399 => Fault::Guest,
            400..=499 => Fault::Limit,
            _ => Fault::Host,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    /// A code that this build does not know is `INTERNAL_ERROR` (SPEC 4).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        strict::text(deserializer).map(|name| Self::from_name(name).unwrap_or(Self::InternalError))
    }
}

/// A place in the handler's own source, 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column, in UTF-16 units as JavaScript counts them.
    pub column: u32,
}

/// Up to five lines of the handler's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snippet {
    /// The lines.
    #[serde(deserialize_with = "strict::string")]
    pub code: String,
    /// Which of them is meant, 1-based.
    pub highlight_line: u32,
}

/// One value of an error's context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ContextValue {
    /// A name.
    Text(String),
    /// A figure.
    Number(u64),
}

/// The error map of SPEC 4. Build it with [`WireError::new`] and the `with_` methods, which bound every text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct WireError {
    /// Code.
    pub code: ErrorCode,
    /// Text for people.
    #[serde(deserialize_with = "strict::string")]
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Name of the handler's error object.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_box_str")]
    pub name: Option<Box<str>>,
    /// Where in the handler.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub location: Option<Location>,
    /// Handler frames only.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_box_str")]
    pub stack: Option<Box<str>>,
    /// Source around the location.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_map")]
    pub snippet: Option<Box<Snippet>>,
    /// The missing token.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_box_str")]
    pub capability: Option<Box<str>>,
    /// Which resource, which limit, how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "strict::context")]
    pub context: BTreeMap<String, ContextValue>,
    /// What the handler's error was caused by.
    #[source]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_boxed_map")]
    pub cause: Option<Box<InnerError>>,
    /// Errors of an AggregateError.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub errors: Vec<InnerError>,
    /// Payload, a map: the own enumerable fields of the handler's error object.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "strict::owned_bins")]
    pub properties: Option<Box<[u8]>>,
}

impl WireError {
    /// An error with the code's own `retryable`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: bounded(message.into(), MAX_ERROR_MESSAGE_BYTES),
            retryable: code.retryable(),
            name: None,
            location: None,
            stack: None,
            snippet: None,
            capability: None,
            context: BTreeMap::new(),
            cause: None,
            errors: Vec::new(),
            properties: None,
        }
    }

    /// INVALID_HANDLER for a handle that is well signed and unknown here: precompiling again helps.
    pub fn unknown_handler(message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorCode::InvalidHandler, message).with_context_text("reason", "unknown");
        error.retryable = true;
        error
    }

    /// INVALID_ARGUMENT for a resident state that is not one of this connection.
    pub fn unknown_state() -> Self {
        let message = "there is no such resident state: it is unknown, was disposed, or belongs to another connection";
        let mut error = Self::new(ErrorCode::InvalidArgument, message).with_context_text("reason", "unknown-state");
        error.retryable = true;
        error
    }

    /// INVALID_ARGUMENT for a resident state that has another version than the request counts on.
    pub fn stale_version(version: u64, expected: u64) -> Self {
        let message = format!("the resident state has version {version}, not {expected}");
        let mut error = Self::new(ErrorCode::InvalidArgument, message)
            .with_context_text("reason", "stale-version")
            .with_context_number("version", version)
            .with_context_number("expected", expected);
        error.retryable = true;
        error
    }

    /// INVALID_ARGUMENT for a payload in shared memory that cannot be had. `reason`: `bad-region`, `unknown-arena` or
    /// `unreadable-region`.
    pub fn bad_region(field: &str, reason: &str, why: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidArgument, format!("{field}: {why}")).with_context_text("reason", reason)
    }

    /// RESOURCE_LIMIT that names the resource, its limit and how many there would have been.
    pub fn resource_limit(resource: &str, limit: u64, count: u64) -> Self {
        Self::new(ErrorCode::ResourceLimit, format!("{resource}: {count} is over the limit of {limit}"))
            .with_context_text("resource", resource)
            .with_context_number("limit", limit)
            .with_context_number("count", count)
    }

    /// PERMISSION_DENIED that names the token that would have allowed it.
    pub fn permission_denied(token: impl Into<String>) -> Self {
        let token = token.into();
        let mut error = Self::new(ErrorCode::PermissionDenied, format!("missing capability {token}"));
        error.capability = Some(bounded(token, MAX_ERROR_MESSAGE_BYTES).into());
        error
    }

    /// Adds a place in the handler.
    #[must_use]
    pub fn with_location(mut self, line: u32, column: u32) -> Self {
        self.location = Some(Location { line, column });
        self
    }

    /// Adds handler frames.
    #[must_use]
    pub fn with_stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = Some(bounded(stack.into(), MAX_ERROR_STACK_BYTES).into());
        self
    }

    /// Adds source lines, and which of them (1-based) is meant.
    #[must_use]
    pub fn with_snippet(mut self, code: impl Into<String>, highlight_line: u32) -> Self {
        self.snippet = Some(Box::new(Snippet { code: bounded(code.into(), MAX_ERROR_STACK_BYTES), highlight_line }));
        self
    }

    /// Adds the missing token.
    #[must_use]
    pub fn with_capability(mut self, token: impl Into<String>) -> Self {
        self.capability = Some(bounded(token.into(), MAX_ERROR_MESSAGE_BYTES).into());
        self
    }

    /// Adds a name to the context.
    #[must_use]
    pub fn with_context_text(mut self, key: &str, value: impl Into<String>) -> Self {
        let value = ContextValue::Text(bounded(value.into(), MAX_ERROR_MESSAGE_BYTES));
        self.context.insert(key.to_owned(), value);
        self
    }

    /// Adds a figure to the context.
    #[must_use]
    pub fn with_context_number(mut self, key: &str, value: u64) -> Self {
        self.context.insert(key.to_owned(), ContextValue::Number(value));
        self
    }

    /// Says that the request must not be repeated, whatever the code: something has come of it already.
    #[must_use]
    pub fn not_retryable(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Leaves out what only `debug` shows. Causes and properties stay: they are the handler's data, like its message.
    #[must_use]
    pub fn without_debug_detail(mut self) -> Self {
        self.stack = None;
        self.snippet = None;
        self
    }
}

/// Cuts a text at a character boundary; what was cut ends in "..." so that nobody takes it for the whole.
pub(crate) fn bounded(mut text: String, max_bytes: usize) -> String {
    const ELLIPSIS: &str = "...";
    if text.len() > max_bytes {
        let room = max_bytes.saturating_sub(ELLIPSIS.len());
        let cut = (0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(cut);
        text.push_str(ELLIPSIS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_round_trip() {
        let mut numbers: Vec<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted());
        numbers.dedup();
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(*code));
        }
    }

    // shows P-cut-texts
    #[test]
    fn texts_are_cut_at_a_character() {
        let error = WireError::new(ErrorCode::ExecutionError, "é".repeat(MAX_ERROR_MESSAGE_BYTES));
        assert!(error.message.len() <= MAX_ERROR_MESSAGE_BYTES);
        assert!(error.message.ends_with("é..."));
    }

    #[test]
    fn faults_follow_the_hundreds() {
        assert_eq!(ErrorCode::Cancelled.fault(), Fault::Client);
        assert_eq!(ErrorCode::ExecutionError.fault(), Fault::Guest);
        assert_eq!(ErrorCode::MemoryLimit.fault(), Fault::Limit);
        assert_eq!(ErrorCode::SidecarGone.fault(), Fault::Host);
    }
}
