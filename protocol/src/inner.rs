//! What an error of a handler carries beside its message: the errors inside of it, and its own fields (SPEC 4).
//!
//! Invariants: every text is bounded here; how deep, how many and how many bytes in all is bounded by whoever builds them
//! out of a handler's claims. Values are payloads and stay opaque.

use serde::{Deserialize, Serialize};

use crate::error::{WireError, bounded};
use crate::limits::{MAX_ERROR_NAME_BYTES, MAX_INNER_MESSAGE_BYTES};
use crate::strict;

/// A cause, or one of the errors of an AggregateError.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}{message}", name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default())]
#[non_exhaustive]
pub struct InnerError {
    /// Text for people; of a value that is no Error, its string form.
    #[serde(deserialize_with = "strict::string")]
    pub message: String,
    /// Name of the error object.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_box_str")]
    pub name: Option<Box<str>>,
    /// The handler's own `code`, as text.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_box_str")]
    pub code: Option<Box<str>>,
    /// Payload: the value itself, where it is no Error.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "strict::owned_bins")]
    pub value: Option<Box<[u8]>>,
    /// Payload, a map: the error's own enumerable fields.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "strict::owned_bins")]
    pub properties: Option<Box<[u8]>>,
    /// What it was caused by.
    #[source]
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::opt_boxed_map")]
    pub cause: Option<Box<InnerError>>,
    /// Of an AggregateError.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "strict::maps")]
    pub errors: Vec<InnerError>,
}

impl InnerError {
    /// One with a message and nothing else.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: bounded(message.into(), MAX_INNER_MESSAGE_BYTES), ..Self::default() }
    }

    /// Adds the handler's own code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(bounded(code.into(), MAX_ERROR_NAME_BYTES).into());
        self
    }

    /// Adds the payload of a value that is no Error.
    #[must_use]
    pub fn with_value(mut self, payload: impl Into<Box<[u8]>>) -> Self {
        self.value = Some(payload.into());
        self
    }
}

/// What an error and the errors inside of it carry alike. They have these fields each, since a field that serde flattens
/// would be read without the strictness of the rest.
macro_rules! described_by_the_handler {
    ($error:ty) => {
        impl $error {
            /// Adds the name of the handler's error object.
            #[must_use]
            pub fn with_name(mut self, name: impl Into<String>) -> Self {
                self.name = Some(bounded(name.into(), MAX_ERROR_NAME_BYTES).into());
                self
            }

            /// Adds the own fields of the handler's error object: the payload of a map.
            #[must_use]
            pub fn with_properties(mut self, payload: impl Into<Box<[u8]>>) -> Self {
                self.properties = Some(payload.into());
                self
            }

            /// Adds what the handler's error was caused by.
            #[must_use]
            pub fn with_cause(mut self, cause: InnerError) -> Self {
                self.cause = Some(Box::new(cause));
                self
            }

            /// Adds the errors of an AggregateError.
            #[must_use]
            pub fn with_errors(mut self, errors: Vec<InnerError>) -> Self {
                self.errors = errors;
                self
            }
        }
    };
}

described_by_the_handler!(InnerError);
described_by_the_handler!(WireError);
