//! Signals as streams that become readable, one byte for each signal.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::signal::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::server::Mode;

/// What the kernel is asked to send at the end of the parent. Nothing happens but a look whether it is gone.
pub const PARENT_SIGNAL: Signal = Signal::SIGUSR2;

/// See the module.
#[derive(Debug)]
pub struct Signals {
    /// SIGTERM; in service mode also SIGINT.
    pub end: UnixStream,
    /// SIGHUP.
    pub reload: UnixStream,
    /// [`PARENT_SIGNAL`].
    pub parent: UnixStream,
}

impl Signals {
    /// Takes the signals. Ctrl-C in a terminal reaches the parent of a child as well, and the parent decides.
    pub fn install(mode: Mode) -> io::Result<Self> {
        let end = stream_of(SIGTERM)?;
        let reload = stream_of(SIGHUP)?;
        let parent = stream_of(PARENT_SIGNAL as i32)?;
        match mode {
            Mode::Service => drop(signal_hook::low_level::pipe::register(SIGINT, end.1.try_clone()?)?),
            Mode::Child => drop(signal_hook::flag::register(SIGINT, Arc::default())?),
        }
        Ok(Self { end: end.0, reload: reload.0, parent: parent.0 })
    }
}

fn stream_of(signal: i32) -> io::Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    Ok((reader, writer))
}
