//! Why a command could not begin, or could not go on.
//!
//! Errors of one execution are not here: they go to the client that asked for it, as a `WireError`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::UsageError;
use crate::config::ConfigErrors;
use crate::exit::ExitCode;
use crate::lifecycle::systemd::ActivationError;
use crate::server::listen::ListenError;

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
    #[error("metricsTextfile: cannot write {}: {source}", .path.display())]
    Textfile { path: PathBuf, source: std::io::Error },
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
    #[error(
        "requireSandbox is true, and not all that stands between guests and the machine can be had: {missing} \
         (`nexus-sidecar engine` tells what this kernel has)"
    )]
    Sandbox { missing: String },
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
            Self::Engine(_) | Self::Sandbox { .. } => ExitCode::EngineInit,
            Self::GuestMismatch { .. } => ExitCode::GuestMismatch,
            Self::NotASocket { .. } | Self::NotAListener { .. } | Self::Activation(_) => ExitCode::Usage,
            Self::Command { code, .. } => *code,
            Self::Listen { source, .. } => source.exit_code(),
            Self::HttpListen { .. } | Self::Textfile { .. } => ExitCode::Config,
            Self::Output(_) | Self::Io { .. } => ExitCode::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_socket_names_the_path_and_ends_with_4() {
        let error = |pid| StartError::SocketInUse { path: "/run/x.sock".into(), pid };
        assert_eq!(error(None).to_string(), "/run/x.sock: another process serves this socket");
        let error = error(Some(7));
        assert_eq!(error.to_string(), "/run/x.sock: another process (7) serves this socket");
        assert_eq!(error.exit_code(), ExitCode::SocketInUse);
    }
}
