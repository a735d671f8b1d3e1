//! What a sidecar tells, as this crate's own types: the wire's may change without the programs that use this crate.
//!
//! Invariants: nothing of `nexus_protocol` is in a public signature; every text of the wire is bounded there.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use nexus_protocol::error as wire;
use nexus_protocol::inner::InnerError;

pub use crate::code::ErrorCode;
pub use crate::limits::SidecarLimits;
use crate::payload::Payload;
pub use crate::stats::Stats;
pub use crate::words::{ExecutionState, Status, SuspendMode};

impl ErrorCode {
    pub(crate) fn of(code: wire::ErrorCode) -> Self {
        // Exhaustive, but for what a newer protocol adds.
        Self::ALL.iter().copied().find(|known| known.wire() == code).unwrap_or(Self::InternalError)
    }

    /// Its name, as in other clients and on the wire.
    pub const fn as_str(self) -> &'static str {
        self.wire().as_str()
    }

    /// The number for logs and metrics.
    pub const fn number(self) -> u16 {
        self.wire().number()
    }

    /// Whether the same request may succeed later, as far as the code alone can tell (see [`Error::retryable`]).
    ///
    /// [`Error::retryable`]: crate::Error::retryable
    pub const fn retryable(self) -> bool {
        self.wire().retryable()
    }

    /// Who has to act.
    pub const fn fault(self) -> Fault {
        match self.wire().fault() {
            wire::Fault::Client => Fault::Client,
            wire::Fault::Guest => Fault::Guest,
            wire::Fault::Limit => Fault::Limit,
            wire::Fault::Host => Fault::Host,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// A place in the handler's own source, 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column, in UTF-16 units as JavaScript counts them.
    pub column: u32,
}

/// Up to five lines of the handler's source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snippet {
    /// The lines.
    pub code: String,
    /// Which of them is meant, 1-based.
    pub highlight_line: u32,
}

/// One value of an error's context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextValue {
    /// A name.
    Text(String),
    /// A figure.
    Number(u64),
}

/// An error that the sidecar answered with, or that a segment ended in: a handler's own, mostly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct SidecarError {
    /// Code.
    pub code: ErrorCode,
    /// Text for people; of a handler's error its author's: [`report`](crate::Error::report) shows it to a terminal unharmed.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Name of the handler's error object.
    pub name: Option<Box<str>>,
    /// Where in the handler.
    pub location: Option<Location>,
    /// Handler frames only, with `debug`.
    pub stack: Option<Box<str>>,
    /// Source around the location, with `debug`.
    pub snippet: Option<Box<Snippet>>,
    /// The missing token.
    pub capability: Option<Box<str>>,
    /// Which resource, which limit, how many.
    pub context: BTreeMap<String, ContextValue>,
    /// What the handler's error was caused by.
    #[source]
    pub cause: Option<Box<Cause>>,
    /// Errors of an AggregateError.
    pub errors: Vec<Cause>,
    /// A map: the own enumerable fields of the handler's error object.
    pub properties: Option<Payload>,
}

/// What an error was caused by, or one of the errors of an AggregateError.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", name.as_deref().map(|name| format!("{name}: ")).unwrap_or_default())]
#[non_exhaustive]
pub struct Cause {
    /// Text for people; of a value that is no Error, its string form.
    pub message: String,
    /// Name of the error object.
    pub name: Option<Box<str>>,
    /// The handler's own `code`, as text.
    pub code: Option<Box<str>>,
    /// The value itself, where it is no Error.
    pub value: Option<Payload>,
    /// A map: the error's own enumerable fields.
    pub properties: Option<Payload>,
    /// What it was caused by.
    #[source]
    pub cause: Option<Box<Cause>>,
    /// Of an AggregateError.
    pub errors: Vec<Cause>,
}

fn payload(bytes: Option<Box<[u8]>>) -> Option<Payload> {
    bytes.map(|bytes| Payload::from_bytes(bytes.into_vec()))
}

fn causes(errors: Vec<InnerError>) -> Vec<Cause> {
    errors.into_iter().map(Cause::of).collect()
}

impl SidecarError {
    pub(crate) fn of(error: wire::WireError) -> Self {
        let context = error.context.into_iter().map(|(key, value)| {
            let value = match value {
                wire::ContextValue::Text(text) => ContextValue::Text(text),
                wire::ContextValue::Number(number) => ContextValue::Number(number),
            };
            (key, value)
        });
        Self {
            code: ErrorCode::of(error.code),
            message: error.message,
            retryable: error.retryable,
            name: error.name,
            location: error.location.map(|wire::Location { line, column }| Location { line, column }),
            stack: error.stack,
            snippet: error.snippet.map(|snippet| {
                let wire::Snippet { code, highlight_line } = *snippet;
                Box::new(Snippet { code, highlight_line })
            }),
            capability: error.capability,
            context: context.collect(),
            cause: error.cause.map(|cause| Box::new(Cause::of(*cause))),
            errors: causes(error.errors),
            properties: payload(error.properties),
        }
    }
}

impl Cause {
    fn of(error: InnerError) -> Self {
        Self {
            message: error.message,
            name: error.name,
            code: error.code,
            value: payload(error.value),
            properties: payload(error.properties),
            cause: error.cause.map(|cause| Box::new(Self::of(*cause))),
            errors: causes(error.errors),
        }
    }
}

/// How something breaks the protocol: bytes that are no frame, message or payload, or a request that none can hold.
#[derive(Clone, Debug)]
pub struct Violation(Arc<dyn StdError + Send + Sync>);

impl Violation {
    pub(crate) fn new(error: impl StdError + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Violation {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_wire_is_one_of_this_crates() {
        assert_eq!(wire::ErrorCode::ALL.len(), ErrorCode::ALL.len());
        for code in wire::ErrorCode::ALL {
            assert_eq!(ErrorCode::of(*code).as_str(), code.as_str());
        }
    }

    #[test]
    fn an_error_tells_all_that_the_wire_tells() {
        let cause =
            InnerError::new("deep").with_name("RangeError").with_code("E").with_value([1]).with_properties([0x80]);
        let told = wire::WireError::resource_limit("maxEvents", 1, 2)
            .with_name("N")
            .with_location(3, 4)
            .with_stack("at x")
            .with_snippet("line", 1)
            .with_capability("ext:a")
            .with_cause(cause.clone().with_errors(vec![cause.clone()]))
            .with_errors(vec![cause])
            .with_properties([0x80]);
        let error = SidecarError::of(told.clone());
        assert_eq!(error.to_string(), told.to_string());
        assert_eq!(error.location, Some(Location { line: 3, column: 4 }));
        assert_eq!(error.snippet, Some(Box::new(Snippet { code: "line".into(), highlight_line: 1 })));
        assert_eq!((error.name.as_deref(), error.stack.as_deref()), (Some("N"), Some("at x")));
        assert_eq!(error.capability.as_deref(), Some("ext:a"));
        assert_eq!(error.context["limit"], ContextValue::Number(1));
        assert_eq!(error.context["resource"], ContextValue::Text("maxEvents".into()));
        assert_eq!((error.errors.len(), error.properties.unwrap().as_bytes()), (1, &[0x80][..]));
        let cause = error.cause.unwrap();
        assert_eq!((cause.to_string(), cause.code.as_deref()), ("RangeError: deep".into(), Some("E")));
        assert_eq!((cause.errors.len(), cause.value.unwrap().as_bytes()), (1, &[1][..]));
    }
}
