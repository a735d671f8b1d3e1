//! What a run that failed tells beside the error itself: what had happened by then, and what the extension threw that the handler
//! let through.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::ErrorCode;
use crate::current::CurrentCall;
use crate::error::Error;
use crate::extensions::CallError;
use crate::payload::PayloadError;
use crate::segment::{Event, Log, Metrics, Segment, StateMutation, ViewCommand};
use crate::value::Value;

/// So many errors of a run's extensions are remembered, the latest.
const MAX_REMEMBERED_ERRORS: usize = 100;

/// A run that failed when it had begun: [`Error::Run`]. Its source is the extension's own error, where the handler let that through,
/// else what the handler's error was caused by.
///
/// ```no_run
/// # use nexus_client::{Client, Error};
/// # async fn example(client: Client) -> Result<(), Error> {
/// if let Err(error) = client.run("$log('so far'); null.x").await {
///     eprintln!("{}", error.report());
///     for log in error.as_run().map(|run| run.logs()).transpose()?.unwrap_or_default() {
///         eprintln!("{}: {}", log.level, log.message.escape_debug());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FailedRun {
    error: Error,
    segments: Vec<Segment>,
    thrown: Option<ExtensionError>,
}

impl FailedRun {
    /// The error of a run. One that had not begun has nothing more to tell.
    pub(crate) fn of(error: Error, segments: Vec<Segment>, thrown: Option<ExtensionError>) -> Error {
        if segments.is_empty() { error } else { Error::Run(Arc::new(Self { error, segments, thrown })) }
    }

    /// Why it failed.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Every segment, the one that failed included, with its effects, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Figures of the whole execution, as far as they are known.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.segments.last().map(|segment| &segment.metrics)
    }

    /// Changes of state, of all segments, in order.
    pub fn state_mutations(&self) -> Result<Vec<StateMutation>, PayloadError> {
        self.all(Segment::state_mutations)
    }

    /// Events, of all segments, in order.
    pub fn events(&self) -> Result<Vec<Event>, PayloadError> {
        self.all(Segment::events)
    }

    /// View commands, of all segments, in order.
    pub fn view_commands(&self) -> Result<Vec<ViewCommand>, PayloadError> {
        self.all(Segment::view_commands)
    }

    /// Log records, of all segments, in order.
    pub fn logs(&self) -> Result<Vec<Log>, PayloadError> {
        self.all(Segment::logs)
    }

    fn all<T>(&self, of: impl Fn(&Segment) -> Result<Vec<T>, PayloadError>) -> Result<Vec<T>, PayloadError> {
        let mut all = Vec::new();
        for segment in &self.segments {
            all.extend(of(segment)?);
        }
        Ok(all)
    }

    /// What the extension threw, where the handler let that through.
    pub fn extension_error(&self) -> Option<&ExtensionError> {
        self.thrown.as_ref()
    }
}

impl fmt::Display for FailedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for FailedRun {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.thrown {
            Some(thrown) => Some(thrown),
            None => self.error.source(),
        }
    }
}

/// What an extension threw. Its source is the error that it was made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtensionError {
    /// Extension.
    pub extension: String,
    /// Method.
    pub method: String,
    /// As the function returned it, whatever the handler saw of it.
    pub error: CallError,
}

impl ExtensionError {
    pub(crate) fn new(call: &CurrentCall, error: CallError) -> Self {
        Self { extension: call.extension().to_owned(), method: call.method().to_owned(), error }
    }

    /// The error that it was made of, if it is a `T`.
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        (self.error.source()? as &(dyn StdError + 'static)).downcast_ref()
    }
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error.name().unwrap_or("Error"), self.error.message())
    }
}

impl StdError for ExtensionError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source().map(|source| source as _)
    }
}

/// What a run's extensions threw, and as which message the handler got it.
#[derive(Default)]
pub(crate) struct AllThrown(VecDeque<(ExtensionError, String)>);

impl AllThrown {
    pub(crate) fn add(&mut self, error: ExtensionError, message: &str) {
        if self.0.len() == MAX_REMEMBERED_ERRORS {
            self.0.pop_front();
        }
        self.0.push_back((error, message.to_owned()));
    }

    /// The one that a handler's error is, thrown on.
    pub(crate) fn let_through(&self, error: &Error) -> Option<ExtensionError> {
        let wire = error.as_sidecar().filter(|wire| wire.code == ErrorCode::ExecutionError)?;
        let properties: Value = error.properties()?.decode().ok()?;
        let property = |name| properties.get(name).and_then(Value::as_str);
        let is_it = |(thrown, message): &&(ExtensionError, String)| {
            *message == wire.message
                && property("extension") == Some(&thrown.extension)
                && property("method") == Some(&thrown.method)
        };
        self.0.iter().rev().find(is_it).map(|(thrown, _)| thrown.clone())
    }
}
