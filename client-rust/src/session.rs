//! The sidecar behind a client: the present one, and the start of the next when it has gone.
//!
//! Invariants: at most one sidecar runs or starts; a call that comes while one starts waits for it without blocking its
//! thread; after [`Sessions::end`] nothing is started, and no thread or process is left when it returns.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::child::SidecarChild;
use crate::error::{CrashLoop, Error, StartError};
use crate::link::Link;
use crate::reader;
use crate::restart::{Next, RestartPolicy, Restarts};
use crate::slot::{Slot, lock};
use crate::spawn::SpawnOptions;

/// Where sidecars come from.
pub(crate) enum Origin {
    Spawn(Box<SpawnOptions>),
    Connect(PathBuf),
}

type Awaited = Arc<Slot<Result<Arc<Link>, Error>>>;

/// What there is for a call.
pub(crate) enum Found {
    Present(Arc<Link>),
    Starting(Awaited),
    Refused(Error),
}

pub(crate) struct Sessions {
    origin: Origin,
    state: Mutex<State>,
    /// Ends the wait before a start.
    ending: Condvar,
}

struct State {
    /// The present sidecar, or the last one.
    session: Session,
    /// Whether the end of `session` has been counted.
    counted: bool,
    /// Calls that wait for the start that is under way.
    starting: Option<Vec<Awaited>>,
    starter: Option<JoinHandle<()>>,
    restarts: Restarts,
    last_failure: Option<Error>,
    /// Nobody wants another one.
    retired: bool,
}

/// One sidecar and its connection.
struct Session {
    link: Arc<Link>,
    /// To end the connection under the reader thread's feet.
    stream: UnixStream,
    reader: Option<JoinHandle<()>>,
    child_pid: Option<u32>,
    ready_since: Instant,
}

impl Sessions {
    /// Starts, or connects to, the first one.
    pub(crate) fn start(origin: Origin, policy: RestartPolicy) -> Result<Arc<Self>, Error> {
        let session = Session::start(&origin)?;
        let state = State {
            session,
            counted: false,
            starting: None,
            starter: None,
            restarts: Restarts::new(policy),
            last_failure: None,
            retired: false,
        };
        Ok(Arc::new(Self { origin, state: Mutex::new(state), ending: Condvar::new() }))
    }

    /// The connection of the present sidecar, or of the last one.
    pub(crate) fn last(&self) -> Arc<Link> {
        Arc::clone(&lock(&self.state).session.link)
    }

    pub(crate) fn child_pid(&self) -> Option<u32> {
        lock(&self.state).session.child_pid
    }

    /// No other sidecar is to follow this one.
    pub(crate) fn retire(&self) {
        lock(&self.state).retired = true;
    }

    /// The connection that a call goes to. Starts the next sidecar when there is none.
    pub(crate) fn find(self: &Arc<Self>) -> Found {
        let mut state = lock(&self.state);
        if let Some(waiting) = &mut state.starting {
            let slot = Slot::new();
            waiting.push(Arc::clone(&slot));
            return Found::Starting(slot);
        }
        let Some((error, at)) = state.session.link.end_of() else {
            return Found::Present(Arc::clone(&state.session.link));
        };
        if state.retired {
            return Found::Refused(error);
        }
        if !state.counted {
            state.counted = true;
            let since = state.session.ready_since;
            state.restarts.died(Some(since), at);
            state.last_failure = Some(error.clone());
        }
        let last = state.last_failure.clone().unwrap_or(error);
        match state.restarts.next(Instant::now()) {
            Next::Never => Found::Refused(last),
            Next::Refuse { deaths, retry_after } => {
                Found::Refused(Error::CrashLoop(Arc::new(CrashLoop { deaths, retry_after, last })))
            }
            Next::Start(wait) => {
                let slot = Slot::new();
                let sessions = Arc::clone(self);
                let starter =
                    thread::Builder::new().name("nexus-start".to_owned()).spawn(move || sessions.restart(wait));
                match starter {
                    Ok(starter) => {
                        state.starter = Some(starter);
                        state.starting = Some(vec![Arc::clone(&slot)]);
                        Found::Starting(slot)
                    }
                    Err(source) => Found::Refused(StartError::Spawn { path: "a thread".into(), source }.into()),
                }
            }
        }
    }

    /// On a thread of its own.
    fn restart(&self, wait: Duration) {
        let state = lock(&self.state);
        let waited = self.ending.wait_timeout_while(state, wait, |state| !state.retired);
        let (state, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        let retired = state.retired;
        drop(state);
        let started =
            if retired { Err(Error::Start(Arc::new(StartError::Ended))) } else { Session::start(&self.origin) };
        let mut state = lock(&self.state);
        let waiting = state.starting.take().unwrap_or_default();
        let (answer, replaced) = match started {
            Ok(session) => {
                state.counted = false;
                let link = Arc::clone(&session.link);
                (Ok(link), Some(std::mem::replace(&mut state.session, session)))
            }
            Err(error) => {
                state.restarts.died(None, Instant::now());
                state.last_failure = Some(error.clone());
                (Err(error), None)
            }
        };
        drop(state);
        for slot in waiting {
            slot.fill(answer.clone());
        }
        // Its thread has ended, or is about to: not to be waited for under the lock.
        drop(replaced);
    }

    /// Ends everything, and waits for that.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.retired = true;
        let starter = state.starter.take();
        drop(state);
        self.ending.notify_all();
        if let Some(starter) = starter
            && starter.thread().id() != thread::current().id()
        {
            // One that panicked has dropped what it had started.
            let _ = starter.join();
        }
        lock(&self.state).session.end();
    }
}

impl Session {
    fn start(origin: &Origin) -> Result<Self, Error> {
        let (mut stream, mut child) = match origin {
            Origin::Spawn(options) => {
                let (child, stream) = SidecarChild::spawn(options)?;
                (stream, Some(child))
            }
            Origin::Connect(path) => {
                let connected = UnixStream::connect(path);
                (connected.map_err(|source| StartError::Connect { path: path.clone(), source })?, None)
            }
        };
        let child_pid = child.as_ref().map(SidecarChild::pid);
        let (decoder, greeting) = reader::greet(&mut stream, &mut child)?;
        let descriptors = stream.try_clone().and_then(|writer| Ok((writer, stream.try_clone()?)));
        let no_thread = |source| StartError::Spawn { path: "a thread or descriptor for the connection".into(), source };
        let (writer, reading) = descriptors.map_err(no_thread)?;
        let link = Link::new(writer, greeting);
        let reader = reader::spawn(reading, decoder, Arc::clone(&link), child).map_err(no_thread)?;
        Ok(Self { link, stream, reader: Some(reader), child_pid, ready_since: Instant::now() })
    }

    /// Ends the connection; a child is reaped when this returns.
    fn end(&mut self) {
        // Fails only where the connection has ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take()
            && reader.thread().id() != thread::current().id()
        {
            // A reader that panicked has dropped, and so reaped, the child.
            let _ = reader.join();
        }
        self.link.end_pump();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}
