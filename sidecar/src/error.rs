//! Why the process ends, and the number that it ends with.
//!
//! Errors of one execution are not here: they go to the client that asked for it, as a `WireError`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;

use crate::cli::UsageError;
use crate::config::ConfigErrors;
use crate::lifecycle::systemd::ActivationError;
use crate::server::listen::ListenError;

/// The exit status of `nexus-sidecar`. The numbers are part of the interface and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum ExitCode {
    Ok = 0,
    /// `run` and `check`: the handler failed, the sidecar did not. Client commands: the sidecar did not answer, or
    /// answered with an error.
    HandlerFailed = 1,
    /// The command line makes no sense; also what `--check-config` ends with when the configuration is refused.
    Usage = 2,
    Config = 3,
    /// Another process serves the socket.
    SocketInUse = 4,
    /// WasmEdge or the guest module cannot be brought up.
    EngineInit = 5,
    /// The guest module is not the one that this build expects.
    GuestMismatch = 6,
    Internal = 70,
    /// Threads were stuck for good, or something was lost that the process cannot do without. The log says what.
    Stuck = 71,
    ParentGone = 75,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command could not begin, or could not go on. `main` prints it and ends with [`StartError::exit_code`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("{0}")]
    Usage(#[from] UsageError),
    #[error("the configuration is not usable:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("{}: another process{} serves this socket", .path.display(), .pid.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    SocketInUse {
        path: PathBuf,
        /// None while it does not listen yet.
        pid: Option<i32>,
    },
    #[error("cannot listen on {}: {source}", .path.display())]
    Listen { path: PathBuf, source: Box<ListenError> },
    #[error(
        "serve needs one of --listen PATH, --fd N, or a socket from systemd; {0}; try 'nexus-sidecar serve --help'"
    )]
    Activation(ActivationError),
    #[error("cannot serve HTTP on {address}: {source}")]
    HttpListen { address: SocketAddr, source: std::io::Error },
    #[error("file descriptor {fd} is not a listening Unix stream socket: {source}")]
    NotAListener { fd: i32, source: std::io::Error },
    #[error("file descriptor {fd} is not a connected Unix stream socket")]
    NotASocket { fd: i32, source: std::io::Error },
    #[error("the engine cannot start: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the guest module has digest {found}, but this build expects {expected}; run `cargo xtask setup` or reinstall"
    )]
    GuestMismatch { expected: String, found: String },
    /// A command other than `serve` failed; the error is the command's own.
    #[error("{source}")]
    Command { source: Box<dyn std::error::Error + Send + Sync>, code: ExitCode },
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("{context}: {source}")]
    Io { context: &'static str, source: std::io::Error },
}

impl StartError {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::Usage,
            Self::Config(_) => ExitCode::Config,
            Self::SocketInUse { .. } => ExitCode::SocketInUse,
            Self::Engine(_) => ExitCode::EngineInit,
            Self::GuestMismatch { .. } => ExitCode::GuestMismatch,
            Self::NotASocket { .. } | Self::NotAListener { .. } | Self::Activation(_) => ExitCode::Usage,
            Self::Command { code, .. } => *code,
            Self::Listen { source, .. } => source.exit_code(),
            Self::HttpListen { .. } => ExitCode::Config,
            Self::Output(_) | Self::Io { .. } => ExitCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_keep_their_numbers() {
        let numbers = [
            (ExitCode::Ok, 0),
            (ExitCode::HandlerFailed, 1),
            (ExitCode::Usage, 2),
            (ExitCode::Config, 3),
            (ExitCode::SocketInUse, 4),
            (ExitCode::EngineInit, 5),
            (ExitCode::GuestMismatch, 6),
            (ExitCode::Internal, 70),
            (ExitCode::Stuck, 71),
            (ExitCode::ParentGone, 75),
        ];
        for (code, number) in numbers {
            assert_eq!(code as u8, number);
        }
    }

    #[test]
    fn a_busy_socket_names_the_path_and_ends_with_4() {
        let error = |pid| StartError::SocketInUse { path: "/run/x.sock".into(), pid };
        assert_eq!(error(None).to_string(), "/run/x.sock: another process serves this socket");
        let error = error(Some(7));
        assert_eq!(error.to_string(), "/run/x.sock: another process (7) serves this socket");
        assert_eq!(error.exit_code(), ExitCode::SocketInUse);
    }
}
