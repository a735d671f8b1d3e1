//! One attempt to start or reach a sidecar, which another thread can end at any moment.
//!
//! Invariant: after [`Attempt::end`] nothing of the attempt blocks any more: neither a wait before it, nor a connect to a
//! listener that accepts nobody, nor the wait for the hello.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::slot::lock;

/// Longest pause between two looks at a listener whose queue is full.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    state: Mutex<State>,
    ending: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// On which the hello is awaited.
    stream: Option<UnixStream>,
}

impl Attempt {
    /// Ends it, from any thread.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        let stream = state.stream.take();
        drop(state);
        self.ending.notify_all();
        if let Some(stream) = stream {
            // Fails only where the connection has ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// Waits, but not beyond the end.
    pub(crate) fn sleep(&self, time: Duration) {
        let waited = self.ending.wait_timeout_while(lock(&self.state), time, |state| !state.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The end of the attempt ends this stream too.
    pub(crate) fn guard(&self, stream: &UnixStream) -> io::Result<()> {
        let stream = stream.try_clone()?;
        let mut state = lock(&self.state);
        if state.ended {
            return Err(io::ErrorKind::Interrupted.into());
        }
        state.stream = Some(stream);
        Ok(())
    }

    /// The stream is its owner's again.
    pub(crate) fn release(&self) {
        lock(&self.state).stream = None;
    }

    /// Connects. A listener whose queue is full is asked again until `deadline`: a connect that blocks could not be ended.
    pub(crate) fn connect(&self, path: &Path, deadline: Instant) -> io::Result<UnixStream> {
        let address = UnixAddr::new(path)?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = UnixStream::from(socket(AddressFamily::Unix, SockType::Stream, flags, None)?);
        let mut pause = Duration::from_millis(1);
        loop {
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => break,
                Err(Errno::EAGAIN) if Instant::now() < deadline => self.sleep(pause),
                Err(Errno::EAGAIN) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it accepts no connections")),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.is_ended() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// A listener whose queue is full.
    fn busy(name: &str) -> (UnixListener, Vec<UnixStream>, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("nexus-client-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let attempt = Attempt::default();
        let mut queued = Vec::new();
        while let Ok(stream) = attempt.connect(&path, Instant::now()) {
            queued.push(stream);
        }
        (listener, queued, path)
    }

    #[test]
    fn a_connect_to_a_listener_that_accepts_nobody_can_be_ended_and_times_out() {
        let (listener, queued, path) = busy("ended");
        let late = Attempt::default().connect(&path, Instant::now() + Duration::from_millis(30)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let attempt = Arc::new(Attempt::default());
        let connecting = {
            let (attempt, path) = (Arc::clone(&attempt), path.clone());
            std::thread::spawn(move || attempt.connect(&path, Instant::now() + LONG))
        };
        attempt.end();
        assert_eq!(connecting.join().unwrap().unwrap_err().kind(), io::ErrorKind::Interrupted);
        drop((listener, queued));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_connect_goes_on_when_the_listener_does() {
        let (listener, queued, path) = busy("goes-on");
        let connecting = {
            let path = path.clone();
            std::thread::spawn(move || Attempt::default().connect(&path, Instant::now() + LONG))
        };
        for _ in 0..=queued.len() {
            listener.accept().unwrap();
        }
        connecting.join().unwrap().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_waits_for_an_attempt_goes_on_when_that_is_ended() {
        let attempt = Arc::new(Attempt::default());
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        attempt.guard(&ours).unwrap();
        let ending = Arc::clone(&attempt);
        let thread = std::thread::spawn(move || ending.end());
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        attempt.sleep(LONG);
        thread.join().unwrap();
        assert!(attempt.guard(&ours).is_err(), "nothing begins any more");
    }
}
