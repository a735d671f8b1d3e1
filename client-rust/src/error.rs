//! Everything that can go wrong, with the codes of SPEC 4.
//!
//! Invariant: an error can be cloned, because one fault of the connection ends many calls.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nexus_protocol::{EncodeError, WireError};

use crate::failed_run::FailedRun;
use crate::payload::{Payload, PayloadError};
use crate::program::Unfit;
use crate::told::{ErrorCode, SidecarError, Violation};

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The sidecar answered with an error; where it is the handler's, it has a location in the handler's source.
    #[error(transparent)]
    Sidecar(Box<SidecarError>),
    /// The sidecar could not be started or reached.
    #[error(transparent)]
    Start(Arc<StartError>),
    /// The connection ended before the answer came.
    #[error(transparent)]
    Gone(Arc<Gone>),
    /// The connection ended in the midst of an execution: what that had done by then has happened, so it is not to be begun
    /// anew unseen.
    #[error(transparent)]
    Interrupted(Arc<Gone>),
    /// The sidecar keeps ending: none is started for a while.
    #[error(transparent)]
    CrashLoop(Arc<CrashLoop>),
    /// A value of this program is no payload, or a payload not the type that was asked for.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A request that cannot be sent, for its size mostly.
    #[error(transparent)]
    Request(Violation),
    /// The sidecar that kept a resident state has gone, and the state with it.
    #[error("the sidecar that kept this state has gone, and the state with it: create it again")]
    StateGone,
    /// The resident state is one of another client.
    #[error("the resident state belongs to another client")]
    ForeignState,
    /// Too much waits in this client for the sidecar already.
    #[error("too much waits for the sidecar already: {count} of {limit} ({resource})")]
    Overloaded {
        /// `waitingRequests` or `waitingBytes`.
        resource: &'static str,
        /// How much may wait.
        limit: usize,
        /// How much does.
        count: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// A run that had begun failed: what had happened by then, and why.
    #[error(transparent)]
    Run(Arc<FailedRun>),
    /// The run was cancelled by its token.
    #[error("the run was cancelled")]
    Cancelled,
    /// An answer of another kind than the request has, or segments out of order: a fault of the sidecar.
    #[error("the sidecar broke the protocol: {what}")]
    Protocol {
        /// How.
        what: &'static str,
    },
}

impl Error {
    /// The code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Sidecar(error) => error.code,
            Self::Start(error) => match **error {
                StartError::Refused(_) | StartError::Version(_) | StartError::Frame(_) | StartError::NotHello => {
                    ErrorCode::ProtocolError
                }
                StartError::NotFound { .. } | StartError::NotAProgram { .. } => ErrorCode::SidecarNotFound,
                _ => ErrorCode::SidecarGone,
            },
            Self::Gone(gone) | Self::Interrupted(gone) => match gone.reason {
                GoneReason::Closed | GoneReason::Io(_) | GoneReason::Panicked => ErrorCode::SidecarGone,
                GoneReason::Malformed(_) | GoneReason::Framing(_) | GoneReason::Refused(_) => ErrorCode::ProtocolError,
            },
            Self::CrashLoop(_) => ErrorCode::SidecarGone,
            Self::Payload(PayloadError::Malformed(_)) => ErrorCode::InvalidArgument,
            Self::Payload(_) => ErrorCode::SerializationError,
            Self::Request(_) | Self::ForeignState => ErrorCode::InvalidArgument,
            Self::StateGone => ErrorCode::SidecarGone,
            Self::Overloaded { .. } => ErrorCode::Overloaded,
            Self::Run(run) => run.error().code(),
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Protocol { .. } => ErrorCode::ProtocolError,
        }
    }

    /// Whether the same call may succeed later; with a new sidecar where this one is gone.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Sidecar(error) => error.retryable,
            Self::Start(error) => !matches!(**error, StartError::Ended) && self.code().retryable(),
            Self::Interrupted(_) => false,
            Self::Run(run) => run.error().retryable(),
            _ => self.code().retryable(),
        }
    }

    /// The sidecar's own words, where it is its answer.
    pub fn as_sidecar(&self) -> Option<&SidecarError> {
        match self {
            Self::Sidecar(error) => Some(error),
            Self::Run(run) => run.error().as_sidecar(),
            _ => None,
        }
    }

    /// Of a run that had begun: what had happened by then, and what an extension threw.
    pub fn as_run(&self) -> Option<&FailedRun> {
        if let Self::Run(run) = self { Some(run) } else { None }
    }

    /// The own fields of the handler's error object, a map: `throw Object.assign(new Error('no'), { status: 404 })`.
    pub fn properties(&self) -> Option<Payload> {
        self.as_sidecar()?.properties.clone()
    }

    /// The same, of an execution of which something has happened already (SPEC 4, retryable).
    #[must_use]
    pub(crate) fn midway(self) -> Self {
        match self {
            Self::Sidecar(mut error) => {
                error.retryable = false;
                Self::Sidecar(error)
            }
            Self::Gone(gone) => Self::Interrupted(gone),
            other => other,
        }
    }

    pub(crate) fn sidecar(error: WireError) -> Self {
        SidecarError::of(error).into()
    }

    pub(crate) fn request(error: EncodeError) -> Self {
        Self::Request(Violation::new(error))
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::Protocol { what }
    }
}

impl From<SidecarError> for Error {
    fn from(error: SidecarError) -> Self {
        Self::Sidecar(Box::new(error))
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(Arc::new(error))
    }
}

/// Why there is no sidecar to talk to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The program is nowhere.
    #[error(
        "nexus-sidecar was not found; install its Debian package, unpack its archive to ~/.local/lib or /opt, or `npm i @nexus/sidecar` \
         and set NEXUS_SIDECAR_BIN or `SpawnOptions::binary` to the program in it. Looked at: {}",
        looked_at.join("; ")
    )]
    NotFound {
        /// Each place, in words.
        looked_at: Vec<String>,
    },
    /// A path that was named explicitly is no program; no other is tried in its place.
    #[error("{named_by} names {}, {why}", path.display())]
    NotAProgram {
        /// Who named it.
        named_by: &'static str,
        /// What it is.
        path: PathBuf,
        /// What is wrong with it.
        why: Unfit,
    },
    /// The operating system refused.
    #[error("cannot start {}", path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sidecar ended, or said nothing in time, before it had said hello.
    #[error("the sidecar did not say hello: {0}")]
    NoHello(Gone),
    /// The first frame was something else: this is no sidecar.
    #[error("the first frame was not a sidecar's hello")]
    NotHello,
    /// The stream is not one of frames.
    #[error("the first bytes were not a frame")]
    Frame(#[source] Violation),
    /// The sidecar refused the hello.
    #[error("the sidecar refused the connection")]
    Refused(#[source] Box<SidecarError>),
    /// The client was dropped or shut down while the next sidecar was to start.
    #[error("the client has ended")]
    Ended,
    /// The thread that was to start it panicked: a fault of this crate, or of what it calls.
    #[error("the thread that starts the sidecar panicked")]
    Panicked,
    /// The sidecar chose a version that was not offered.
    #[error(transparent)]
    Version(Violation),
}

/// A sidecar that ended too often in too short a time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the sidecar keeps ending ({deaths} times); next try in {} ms; the last time: {last}", retry_after.as_millis())]
#[non_exhaustive]
pub struct CrashLoop {
    /// How often.
    pub deaths: usize,
    /// When the next start is tried.
    pub retry_after: Duration,
    /// How it ended the last time.
    pub last: Error,
}

/// The end of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Gone {
    /// What ended it.
    pub reason: GoneReason,
    /// How the child ended, when it was a child and has ended.
    pub exit: Option<ExitStatus>,
    /// The last lines that the child wrote to its log, oldest first.
    pub log_tail: Vec<String>,
}

/// What ended a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GoneReason {
    /// The other end was closed.
    Closed,
    /// Reading failed.
    Io(Arc<io::Error>),
    /// A frame that is no message.
    Malformed(Violation),
    /// Bytes that are no frame.
    Framing(Violation),
    /// The sidecar said why it closes the connection.
    Refused(Box<SidecarError>),
    /// The thread that reads the connection panicked: a fault of this crate, or of the program's logger.
    Panicked,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sidecar is gone: ")?;
        match &self.reason {
            GoneReason::Closed => f.write_str("the connection was closed")?,
            GoneReason::Io(error) => write!(f, "{error}")?,
            GoneReason::Malformed(error) => write!(f, "it sent a malformed message ({error})")?,
            GoneReason::Framing(error) => write!(f, "it sent no frame ({error})")?,
            GoneReason::Panicked => f.write_str("the thread that reads its answers panicked")?,
            GoneReason::Refused(error) => write!(f, "it closed the connection ({error})")?,
        }
        if let Some(exit) = self.exit {
            write!(f, ", {exit}")?;
        }
        if !self.log_tail.is_empty() {
            write!(f, "; its last words:\n  {}", self.log_tail.join("\n  "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Gone {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_retryable_follow_the_specification() {
        let gone = Gone { reason: GoneReason::Closed, exit: None, log_tail: vec!["one".into(), "two".into()] };
        assert_eq!(gone.to_string(), "the sidecar is gone: the connection was closed; its last words:\n  one\n  two");
        let error = Error::Gone(Arc::new(gone));
        assert_eq!((error.code(), error.retryable()), (ErrorCode::SidecarGone, true));
        let unknown_handler = Error::sidecar(WireError::unknown_handler("x"));
        assert_eq!((unknown_handler.code(), unknown_handler.retryable()), (ErrorCode::InvalidHandler, true));
        let missing = Error::from(StartError::NotFound { looked_at: vec![] });
        assert_eq!((missing.code(), missing.retryable()), (ErrorCode::SidecarNotFound, false));
        assert_eq!(Error::Cancelled.code(), ErrorCode::Cancelled);
    }
}
