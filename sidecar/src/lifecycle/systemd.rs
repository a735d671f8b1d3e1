//! systemd: sockets that it hands in (sd_listen_fds(3)), and words that it wants to hear (sd_notify(3)).
//!
//! The watchdog is fed by progress, not by a timer: between two beats the poller has to have been polled, the engine's
//! watchdog has to have ticked, and no run may be left over that was to be stopped long ago.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::RawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::served::Served;
use crate::server::Pulse;

/// First descriptor that a service manager hands in.
const FIRST_FD: RawFd = 3;
/// Beats in one interval of the service manager: one that comes late, or a busy moment, is no reason to be killed.
const BEATS_PER_INTERVAL: u32 = 3;

/// Why the environment hands in no socket that can be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    #[error("nothing was handed in: LISTEN_FDS is not set")]
    Nothing,
    #[error("the sockets are not for this process: LISTEN_PID is {0:?}")]
    AnotherProcess(String),
    #[error("LISTEN_FDS is {0:?}; exactly one listening socket is served")]
    NotOne(String),
}

/// The descriptor of the one socket that was handed in.
pub fn listen_fd(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> Result<RawFd, ActivationError> {
    let count = variable("LISTEN_FDS").ok_or(ActivationError::Nothing)?;
    let pid = variable("LISTEN_PID").unwrap_or_default();
    if pid.parse() != Ok(own_pid) {
        return Err(ActivationError::AnotherProcess(pid));
    }
    match count.as_str() {
        "1" => Ok(FIRST_FD),
        _ => Err(ActivationError::NotOne(count)),
    }
}

/// The service manager, or nobody.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    interval: Option<Duration>,
}

impl Notifier {
    pub fn from_env() -> Self {
        let to = env::var_os("NOTIFY_SOCKET").and_then(|name| match open(&name) {
            Ok(to) => Some(to),
            Err(e) => {
                log::warn!("cannot reach the service manager at {}: {e}", name.display());
                None
            }
        });
        let for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let micros = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0 && for_us);
        let interval = micros.map(Duration::from_micros).filter(|_| to.is_some());
        Self { to, interval }
    }

    /// How often the service manager wants to hear that we are alive.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.interval
    }

    pub fn ready(&self) {
        self.send(&format!("READY=1\nSTATUS=serving, pid {}", std::process::id()));
    }

    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=finishing what is under way");
    }

    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, words: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(e) = socket.send_to_addr(words.as_bytes(), address)
        {
            log::debug!("cannot tell the service manager: {e}");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // a service manager that does not read must not hold up the main thread
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Decides when the service manager may be told that all is well.
#[derive(Debug)]
pub struct Beat {
    every: Duration,
    due: Instant,
    last: Option<Pulse>,
}

impl Beat {
    pub fn new(server: &dyn Served, interval: Duration) -> Self {
        server.prod();
        let every = interval / BEATS_PER_INTERVAL;
        Self { every, due: Instant::now() + every, last: server.pulse() }
    }

    pub fn due(&self) -> Instant {
        self.due
    }

    /// Whether there was progress since the last beat; None of it happens before it is due.
    pub fn tick(&mut self, server: &dyn Served, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + self.every;
        let pulse = server.pulse();
        let alive = match (self.last, pulse) {
            (Some(last), Some(now)) => now.is_after(last) && !server.has_stuck_run(),
            _ => false,
        };
        if alive {
            self.last = pulse;
        } else {
            log::error!("no progress since the last beat ({:?}, then {pulse:?})", self.last);
        }
        server.prod();
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Result<RawFd, ActivationError> {
        let variable = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        listen_fd(variable, 42)
    }

    #[test]
    fn one_socket_for_this_process_is_taken() {
        assert_eq!(found(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "42")]), Ok(3));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        assert_eq!(found(&[]), Err(ActivationError::Nothing));
        for pid in ["43", "", "-42", "42x", " 42"] {
            let error = found(&[("LISTEN_FDS", "1"), ("LISTEN_PID", pid)]).unwrap_err();
            assert_eq!(error, ActivationError::AnotherProcess(pid.to_owned()));
        }
        for count in ["0", "2", "", "-1", "99999999999999999999", "1 "] {
            let error = found(&[("LISTEN_FDS", count), ("LISTEN_PID", "42")]).unwrap_err();
            assert_eq!(error, ActivationError::NotOne(count.to_owned()));
        }
    }

    #[test]
    fn a_notify_socket_is_a_path_or_an_abstract_name() {
        assert!(open(OsStr::new("/run/x")).is_ok());
        assert!(open(OsStr::new("@abstract")).is_ok());
        for name in ["", "relative", "@"] {
            assert!(name == "@" || open(OsStr::new(name)).is_err(), "{name:?}");
        }
    }
}
