//! Handlers, as text or compiled ahead of their first execution.

use std::sync::{Arc, Mutex};

use nexus_protocol::message::{self, Code};

use crate::error::Error;
use crate::segment::Segment;
use crate::slot::lock;
use crate::told::{ErrorCode, SuspendMode};

/// What to run: text, or what precompiling it gave.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Handler {
    /// Text.
    Source(String),
    /// Compiled.
    Compiled(Compiled),
}

impl From<&str> for Handler {
    fn from(source: &str) -> Self {
        Self::Source(source.to_owned())
    }
}

impl From<String> for Handler {
    fn from(source: String) -> Self {
        Self::Source(source)
    }
}

impl From<Compiled> for Handler {
    fn from(compiled: Compiled) -> Self {
        Self::Compiled(compiled)
    }
}

impl From<&Compiled> for Handler {
    fn from(compiled: &Compiled) -> Self {
        Self::Compiled(compiled.clone())
    }
}

/// A compiled handler. Clones share it. It keeps its source, so that it survives a sidecar that has forgotten it: the
/// first execution that hears so compiles it again, once.
#[derive(Clone, Debug)]
pub struct Compiled(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: String,
    name: Option<String>,
    /// The mode that was asked for, not what the text decided.
    asked: Option<SuspendMode>,
    parts: Mutex<Arc<CompiledParts>>,
}

/// A compiled answer, owned.
#[derive(Clone, Debug)]
pub(crate) struct CompiledParts {
    pub(crate) handle: Vec<u8>,
    capabilities: Vec<String>,
    suspend_mode: SuspendMode,
    cache_hit: bool,
    compilation_time_us: u64,
    warnings: Vec<Note>,
}

impl CompiledParts {
    pub(crate) fn of(compiled: &message::Compiled<'_>) -> Self {
        Self {
            handle: compiled.handler.to_vec(),
            capabilities: compiled.capabilities.iter().map(|token| (*token).to_owned()).collect(),
            suspend_mode: SuspendMode::of(compiled.suspend_mode),
            cache_hit: compiled.cache_hit,
            compilation_time_us: compiled.compilation_time_us,
            warnings: compiled.warnings.iter().map(Note::of).collect(),
        }
    }
}

impl Compiled {
    pub(crate) fn new(source: String, name: Option<String>, asked: Option<SuspendMode>, parts: CompiledParts) -> Self {
        Self(Arc::new(Inner { source, name, asked, parts: Mutex::new(Arc::new(parts)) }))
    }

    /// The text that was compiled.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The sidecar's handle: opaque, signed, of use to the sidecar that made it only.
    pub fn handle(&self) -> Vec<u8> {
        self.parts().handle.clone()
    }

    /// The capabilities that the handler needs, as far as its text tells.
    pub fn capabilities(&self) -> Vec<String> {
        self.parts().capabilities.clone()
    }

    /// How its extension calls suspend.
    pub fn suspend_mode(&self) -> SuspendMode {
        self.parts().suspend_mode
    }

    /// What its author should know of its text.
    pub fn warnings(&self) -> Vec<Note> {
        self.parts().warnings.clone()
    }

    /// Whether the sidecar had it compiled before.
    pub fn cache_hit(&self) -> bool {
        self.parts().cache_hit
    }

    /// Time to compile it.
    pub fn compilation_time_us(&self) -> u64 {
        self.parts().compilation_time_us
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    pub(crate) fn asked_mode(&self) -> Option<SuspendMode> {
        self.0.asked
    }

    pub(crate) fn parts(&self) -> Arc<CompiledParts> {
        Arc::clone(&lock(&self.0.parts))
    }

    pub(crate) fn replace(&self, parts: CompiledParts) {
        *lock(&self.0.parts) = Arc::new(parts);
    }
}

/// What a sidecar found out about a handler without running it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Who grants all of these has granted enough.
    pub capabilities: Vec<String>,
    /// Those of them without which it fails whenever it runs, as far as its text tells. Of the others it may need some, or none.
    pub certain: Vec<String>,
    /// How its extension calls suspend.
    pub suspend_mode: SuspendMode,
    /// Why they suspend in that way, in words; `None` from a sidecar that does not say.
    pub suspend_reason: Option<String>,
    /// What its author should know of its text, such as a promise that is used as a value.
    pub warnings: Vec<Note>,
    /// Why its text could not be analyzed, if it could not: then it may need anything.
    pub unparsed: Option<Note>,
}

/// Something about a handler's text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// What is wrong, and what to do.
    pub message: String,
    /// 1-based.
    pub line: u32,
    /// 1-based, in UTF-16 units.
    pub column: u32,
}

impl Note {
    pub(crate) fn of(note: &message::Note<'_>) -> Self {
        Self { message: note.message.to_owned(), line: note.line, column: note.column }
    }
}

impl Checked {
    pub(crate) fn of(checked: &message::Checked<'_>) -> Self {
        Self {
            capabilities: checked.capabilities.iter().map(|token| (*token).to_owned()).collect(),
            certain: checked.certain.iter().map(|token| (*token).to_owned()).collect(),
            suspend_mode: SuspendMode::of(checked.suspend_mode),
            suspend_reason: checked.suspend_reason.map(str::to_owned),
            warnings: checked.warnings.iter().map(Note::of).collect(),
            unparsed: checked.unparsed.as_ref().map(Note::of),
        }
    }
}

/// What to send for a handler; holds what the message borrows.
pub(crate) enum SentCode<'a> {
    Source(&'a str),
    Handle(Arc<CompiledParts>),
}

impl Handler {
    /// Its text.
    pub(crate) fn source(&self) -> &str {
        match self {
            Self::Source(source) => source,
            Self::Compiled(compiled) => compiled.source(),
        }
    }

    pub(crate) fn to_send(&self) -> SentCode<'_> {
        match self {
            Self::Source(source) => SentCode::Source(source),
            Self::Compiled(compiled) => SentCode::Handle(compiled.parts()),
        }
    }
}

/// Whether an execution found no handler behind its handle, which is to be compiled again then.
pub(crate) fn says_unknown_handler(answer: &Result<Segment, Error>) -> bool {
    let error = match answer {
        Ok(segment) => segment.error.as_ref(),
        Err(error) => error.as_sidecar(),
    };
    error.is_some_and(|error| error.code == ErrorCode::InvalidHandler && error.retryable)
}

impl SentCode<'_> {
    pub(crate) fn code(&self) -> Code<'_> {
        match self {
            Self::Source(source) => Code::Source(source),
            Self::Handle(parts) => Code::Handler(&parts.handle),
        }
    }
}
