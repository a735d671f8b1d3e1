//! The sidecar behind a client: the present one, and the start of the next when it has gone.
//!
//! Invariants: at most one sidecar runs or starts; a call that comes while one starts waits for it without blocking its
//! thread, and is told how it ended, also by a panic; after [`Sessions::end`] nothing is started, what is under way ends, and
//! the threads of that reap the process. Nobody waits for it but who asks by `Client::shutdown`.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::attempt::Attempt;
use crate::child::SidecarChild;
use crate::error::{CrashLoop, Error, StartError};
use crate::link::Link;
use crate::options::ClientOptions;
use crate::outbox::overloaded;
use crate::reader;
use crate::restart::{FOREVER, Next, Restarts};
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
    options: ClientOptions,
    state: Mutex<State>,
}

struct State {
    /// The present sidecar, or the last one.
    session: Session,
    /// Whether the end of `session` has been counted.
    counted: bool,
    /// The start that is under way.
    starting: Option<Starting>,
    restarts: Restarts,
    last_failure: Option<Error>,
    /// Nobody wants another one.
    retired: bool,
}

struct Starting {
    attempt: Arc<Attempt>,
    /// Calls that wait for it.
    waiting: Vec<Awaited>,
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
    /// Starts, or connects to, the first one. For a thread of its own.
    pub(crate) fn start(origin: Origin, options: ClientOptions, attempt: &Attempt) -> Result<Arc<Self>, Error> {
        let started = catch_unwind(AssertUnwindSafe(|| Session::start(&origin, &options, attempt)));
        let session = started.unwrap_or_else(|_| Err(StartError::Panicked.into()))?;
        Ok(Self::with(origin, options, session))
    }

    fn with(origin: Origin, options: ClientOptions, session: Session) -> Arc<Self> {
        let state = State {
            session,
            counted: false,
            starting: None,
            restarts: Restarts::new(options.restart),
            last_failure: None,
            retired: false,
        };
        Arc::new(Self { origin, options, state: Mutex::new(state) })
    }

    /// The connection of the present sidecar, or of the last one.
    pub(crate) fn last(&self) -> Arc<Link> {
        Arc::clone(&lock(&self.state).session.link)
    }

    pub(crate) fn child_pid(&self) -> Option<u32> {
        lock(&self.state).session.child_pid
    }

    /// No other sidecar is to follow this one. A start that is under way ends; what is returned is filled when it has.
    pub(crate) fn retire(&self) -> Option<Awaited> {
        let mut state = lock(&self.state);
        state.retired = true;
        let starting = state.starting.as_mut()?;
        let slot = Slot::new();
        starting.waiting.push(Arc::clone(&slot));
        let attempt = Arc::clone(&starting.attempt);
        drop(state);
        attempt.end();
        Some(slot)
    }

    /// The connection that a call goes to. Starts the next sidecar when there is none.
    pub(crate) fn find(self: &Arc<Self>) -> Found {
        self.find_or(|sessions, attempt| Session::start(&sessions.origin, &sessions.options, attempt))
    }

    fn find_or(
        self: &Arc<Self>,
        start: impl FnOnce(&Self, &Attempt) -> Result<Session, Error> + Send + 'static,
    ) -> Found {
        let mut state = lock(&self.state);
        if let Some(starting) = &mut state.starting {
            return starting.join(self.options.waiting().requests);
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
                let (slot, attempt) = (Slot::new(), Arc::new(Attempt::default()));
                let (sessions, starters) = (Arc::clone(self), Arc::clone(&attempt));
                let restart = move || sessions.restart(wait, &starters, start);
                match thread::Builder::new().name("nexus-start".to_owned()).spawn(restart) {
                    Ok(_) => {
                        state.starting = Some(Starting { attempt, waiting: vec![Arc::clone(&slot)] });
                        Found::Starting(slot)
                    }
                    Err(source) => Found::Refused(StartError::Spawn { path: "a thread".into(), source }.into()),
                }
            }
        }
    }

    /// On a thread of its own. However it ends, whoever waits for it is told.
    fn restart(
        &self,
        wait: Duration,
        attempt: &Attempt,
        start: impl FnOnce(&Self, &Attempt) -> Result<Session, Error>,
    ) {
        attempt.sleep(wait);
        let started = if attempt.is_ended() {
            Err(StartError::Ended.into())
        } else {
            catch_unwind(AssertUnwindSafe(|| start(self, attempt))).unwrap_or_else(|_| Err(StartError::Panicked.into()))
        };
        let mut state = lock(&self.state);
        let waiting = state.starting.take().map(|starting| starting.waiting).unwrap_or_default();
        let (answer, unused) = match started {
            // It came too late.
            Ok(session) if state.retired => (Err(StartError::Ended.into()), Some(session)),
            Ok(session) => {
                state.counted = false;
                let link = Arc::clone(&session.link);
                (Ok(link), Some(std::mem::replace(&mut state.session, session)))
            }
            Err(_) if state.retired => (Err(StartError::Ended.into()), None),
            Err(error) => {
                state.restarts.died(None, Instant::now());
                state.last_failure = Some(error.clone());
                (Err(error), None)
            }
        };
        drop(state);
        // A session is not ended under the lock, and one that came too late before anybody is told that all has ended.
        if let Some(mut session) = unused {
            session.end();
            session.wait();
        }
        for slot in waiting {
            slot.fill(answer.clone());
        }
    }

    /// Ends everything, and does not wait for that.
    pub(crate) fn end(&self) {
        self.retire();
        lock(&self.state).session.end();
    }
}

impl Starting {
    /// One more call waits for it, if so many may.
    fn join(&mut self, bound: usize) -> Found {
        if self.waiting.len() >= bound {
            // Calls that were dropped meanwhile wait no more.
            self.waiting.retain(|slot| Arc::strong_count(slot) > 1);
        }
        if self.waiting.len() >= bound {
            return Found::Refused(overloaded("waitingRequests", bound, self.waiting.len()));
        }
        let slot = Slot::new();
        self.waiting.push(Arc::clone(&slot));
        Found::Starting(slot)
    }
}

impl Session {
    fn start(origin: &Origin, options: &ClientOptions, attempt: &Attempt) -> Result<Self, Error> {
        let deadline = Instant::now().checked_add(options.start_timeout);
        let deadline = deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        let (mut stream, mut child) = match origin {
            Origin::Spawn(options) => {
                let (child, stream) = SidecarChild::spawn(options)?;
                (stream, Some(child))
            }
            Origin::Connect(path) => {
                let connected = attempt.connect(path, deadline);
                (connected.map_err(|source| StartError::Connect { path: path.clone(), source })?, None)
            }
        };
        let child_pid = child.as_ref().map(SidecarChild::pid);
        let no_descriptor = |source| StartError::Spawn { path: "a thread or descriptor".into(), source };
        attempt.guard(&stream).map_err(no_descriptor)?;
        let greeted = reader::greet(&mut stream, &mut child, attempt, deadline);
        attempt.release();
        let (decoder, greeting) = greeted?;
        let descriptors = stream.try_clone().and_then(|writer| Ok((writer, stream.try_clone()?)));
        let (writer, reading) = descriptors.map_err(no_descriptor)?;
        let link = Link::new(writer, greeting, options);
        let reader = reader::spawn(reading, decoder, Arc::clone(&link), child).map_err(no_descriptor)?;
        Ok(Self { link, stream, reader: Some(reader), child_pid, ready_since: Instant::now() })
    }

    /// Ends the connection. The reader thread reaps a child.
    fn end(&mut self) {
        // Fails only where the connection has ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits for what [`end`](Self::end) brings about.
    fn wait(&mut self) {
        if let Some(reader) = self.reader.take() {
            // One that panicked has dropped, and so reaped, the child.
            let _ = reader.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use nexus_protocol::FrameDecoder;
    use nexus_protocol::message::HelloLimits;

    use super::*;
    use crate::link::Greeting;
    use crate::restart::RestartPolicy;
    use crate::slot::block_on;

    /// A connection that has ended already.
    fn ended_session(options: &ClientOptions) -> Session {
        let (stream, peer) = UnixStream::pair().unwrap();
        drop(peer);
        let greeting = Greeting {
            build: String::new(),
            engine: String::new(),
            pid: 1,
            debug: false,
            limits: HelloLimits::default(),
        };
        let link = Link::new(stream.try_clone().unwrap(), greeting, options);
        let (reading, decoder) = (stream.try_clone().unwrap(), FrameDecoder::new(1000));
        let reader = reader::spawn(reading, decoder, Arc::clone(&link), None).unwrap();
        block_on(link.closed());
        Session { link, stream, reader: Some(reader), child_pid: None, ready_since: Instant::now() }
    }

    fn sessions(options: ClientOptions) -> Arc<Sessions> {
        let origin = Origin::Connect("/nowhere".into());
        Sessions::with(origin, options, ended_session(&options))
    }

    fn eager() -> ClientOptions {
        ClientOptions::from(RestartPolicy { max_crashes: 100, max_delay: Duration::ZERO, ..RestartPolicy::default() })
    }

    fn awaited(found: Found) -> Result<Arc<Link>, Error> {
        let Found::Starting(slot) = found else { panic!("nothing starts") };
        block_on(poll_fn(|context| slot.poll(context)))
    }

    #[test]
    fn a_starter_that_panics_tells_everybody_and_the_next_one_starts() {
        let sessions = sessions(eager().max_waiting_requests(2));
        for _ in 0..3 {
            let (go, gone) = std::sync::mpsc::channel::<()>();
            let first = sessions.find_or(move |_, _| {
                let _ = gone.recv();
                panic!("expected by the test")
            });
            let second = sessions.find();
            let Found::Refused(Error::Overloaded { limit: 2, count: 2, .. }) = sessions.find() else {
                panic!("two may wait")
            };
            drop(second);
            let third = sessions.find();
            drop(go);
            for found in [first, third] {
                let Err(Error::Start(error)) = awaited(found) else { panic!("it started") };
                assert!(matches!(*error, StartError::Panicked), "{error}");
            }
        }
        let link = awaited(sessions.find_or(|sessions, _| Ok(ended_session(&sessions.options)))).unwrap();
        assert!(Arc::ptr_eq(&link, &sessions.last()));
        sessions.end();
    }

    #[test]
    fn a_start_that_succeeds_after_the_end_is_nobodys() {
        let sessions = sessions(eager());
        let before = sessions.last();
        let found = sessions.find_or(|sessions, attempt| {
            attempt.sleep(Duration::from_secs(600));
            Ok(ended_session(&sessions.options))
        });
        let told = sessions.retire().unwrap();
        for result in [awaited(found), awaited(Found::Starting(told))] {
            let Err(Error::Start(error)) = result else { panic!("it started") };
            assert!(matches!(*error, StartError::Ended), "{error}");
        }
        assert!(Arc::ptr_eq(&before, &sessions.last()));
        assert!(sessions.retire().is_none(), "nothing starts any more");
        sessions.end();
    }
}
