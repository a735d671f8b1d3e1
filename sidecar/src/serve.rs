//! `serve`: from a configuration to a running server, and its end.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::Listen;
use crate::config::Loaded;
use crate::error::{ExitCode, StartError};
use crate::observe::logging::{self, Layout};
use crate::os;
use crate::runtime::Runtime;
use crate::server::{Mode, Server, listen};

/// Serves until the parent is gone, or until a signal says so.
pub fn serve(listen: &Listen, loaded: Loaded) -> Result<ExitCode, StartError> {
    // fails only when a logger is there already, which then is as good
    let _ = logging::init(loaded.config.log, Layout::detect());
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    loaded.describe().lines().for_each(|line| log::debug!("configuration: {line}"));
    // before the engine: a socket that is in use, or is none, needs no engine to say so
    let (source, mode) = match listen {
        Listen::Fd(fd) => (Source::Parent(adopt(*fd)?), Mode::Child),
        Listen::Path(path) => {
            let (listener, bound) = listen::bind(path)?;
            (Source::Path(listener, bound), Mode::Service)
        }
    };
    let interpreted = !loaded.config.enable_aot;
    let runtime = Arc::new(Runtime::new(loaded.config).map_err(|e| StartError::Engine(Box::new(e)))?);
    if interpreted {
        log::warn!("enableAOT is false: handlers are interpreted, some hundred times slower");
    }
    let io = |context: &'static str| move |source: io::Error| StartError::Io { context, source };
    let (server, exited) = Server::new(runtime, mode).map_err(io("cannot make the server"))?;
    let signals = signals(mode).map_err(io("cannot take signals"))?;
    server.with_poller(|p| p.watch_signals(signals)).map_err(io("cannot take signals"))?;
    let _bound = match source {
        Source::Parent(stream) => {
            server.adopt(stream).map_err(io("cannot use the parent's socket"))?;
            None
        }
        Source::Path(listener, bound) => {
            server.with_poller(|p| p.listen(listener)).map_err(io("cannot listen"))?;
            Some(bound)
        }
    };
    server.start().map_err(io("cannot start the workers"))?;
    log::info!("ready");
    Ok(exited.recv().unwrap_or(ExitCode::Internal))
}

enum Source {
    Parent(UnixStream),
    Path(std::os::unix::net::UnixListener, listen::Bound),
}

fn adopt(fd: RawFd) -> Result<UnixStream, StartError> {
    os::adopt_socket(fd).map_err(|source| StartError::NotASocket { fd, source })
}

/// A stream that becomes readable when the process is asked to end. Ctrl-C in a terminal reaches the parent as well, and the
/// parent decides: a child ends with its socket.
fn signals(mode: Mode) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, writer.try_clone()?)?;
    match mode {
        Mode::Service => drop(signal_hook::low_level::pipe::register(SIGINT, writer)?),
        Mode::Child => drop(signal_hook::flag::register(SIGINT, Arc::default())?),
    }
    Ok(reader)
}
