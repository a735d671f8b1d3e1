//! The client: one connection to one sidecar.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nexus_protocol::message::{self, CallFailure, Cancel, HelloLimits, Precompile, Resume, Stats};
use nexus_protocol::{ClientMessage, ErrorCode};
use serde::Serialize;

use crate::call::Call;
use crate::child::SidecarChild;
use crate::compiled::{Checked, Compiled, CompiledParts, Handler};
use crate::context::Context;
use crate::error::{Error, StartError};
use crate::extensions::CallError;
use crate::link::{Answer, Link, Pending};
use crate::payload::Payload;
use crate::reader;
use crate::resident::ResidentState;
use crate::run::{Outcome, Run};
use crate::run_options::RunOptions;
use crate::segment::Segment;
use crate::slot::lock;
use crate::spawn::SpawnOptions;
use crate::workers::Workers;

/// A connection to a sidecar. Clones share it, and any thread may use it.
///
/// When the last clone is dropped the connection ends, calls that are still under way fail with `SIDECAR_GONE`, and a
/// sidecar that was spawned ends and is reaped before the drop returns.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    /// To end the connection under the reader thread's feet.
    stream: UnixStream,
    reader: Mutex<Option<JoinHandle<()>>>,
    workers: Arc<Workers>,
    child_pid: Option<u32>,
}

/// What to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelTarget {
    /// The execution that this suspension belongs to.
    Suspension(String),
}

/// How an extension call ended.
#[derive(Clone, Debug)]
pub enum Resolution {
    /// With a value.
    Value(Payload),
    /// With an error, which is thrown inside the handler.
    Failure(CallError),
}

impl Client {
    /// Starts a sidecar as a child of this process and waits until it is ready.
    pub fn spawn(options: SpawnOptions) -> Result<Self, Error> {
        let (child, stream) = SidecarChild::spawn(&options)?;
        Self::start(stream, Some(child))
    }

    /// Connects to a sidecar that listens on a socket.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let stream =
            UnixStream::connect(path).map_err(|source| StartError::Connect { path: path.to_owned(), source })?;
        Self::start(stream, None)
    }

    fn start(mut stream: UnixStream, mut child: Option<SidecarChild>) -> Result<Self, Error> {
        let child_pid = child.as_ref().map(SidecarChild::pid);
        let (decoder, greeting) = reader::greet(&mut stream, &mut child)?;
        let descriptors = stream.try_clone().and_then(|writer| Ok((writer, stream.try_clone()?)));
        let no_thread = |source| StartError::Spawn { path: "a thread or descriptor for the connection".into(), source };
        let (writer, reading) = descriptors.map_err(no_thread)?;
        let link = Link::new(writer, greeting);
        let reader = reader::spawn(reading, decoder, Arc::clone(&link), child).map_err(no_thread)?;
        let reader = Mutex::new(Some(reader));
        Ok(Self(Arc::new(Inner { link, stream, reader, workers: Arc::default(), child_pid })))
    }

    /// Runs a handler to its first suspension or its end. A failed handler is a segment with an `error`.
    pub fn execute(&self, handler: impl Into<Handler>, context: &Context) -> Call<Segment> {
        match start_execution(&self.0.link, handler.into(), context.clone(), Arc::default()) {
            Ok(execution) => Call::new(execution),
            Err(error) => Call::failed(error),
        }
    }

    /// [`execute`](Self::execute) of a compiled handler, by its name in other clients.
    pub fn execute_compiled(&self, compiled: &Compiled, context: &Context) -> Call<Segment> {
        self.execute(compiled, context)
    }

    /// Runs a handler to its end, extension calls included.
    pub fn run(&self, handler: impl Into<Handler>, context: &Context, options: RunOptions) -> Call<Outcome> {
        match Run::start(
            Arc::clone(&self.0.link),
            Arc::clone(&self.0.workers),
            handler.into(),
            context.clone(),
            options,
        ) {
            Ok(run) => Call::new(run),
            Err(error) => Call::failed(error),
        }
    }

    /// Leaves a state with the sidecar: a map or struct. Executions then run on it, see [`Context::resident`].
    pub fn create_state<T: Serialize + ?Sized>(&self, state: &T) -> Call<ResidentState> {
        match Payload::encode(state) {
            Ok(state) => self.create_state_payload(&state),
            Err(error) => Call::failed(error.into()),
        }
    }

    /// [`create_state`](Self::create_state), as MessagePack.
    pub fn create_state_payload(&self, state: &Payload) -> Call<ResidentState> {
        ResidentState::create(&self.0.link, state)
    }

    /// Compiles a handler ahead of its first execution.
    pub fn precompile(&self, source: impl Into<String>) -> Call<Compiled> {
        self.precompile_named(source, None)
    }

    /// [`precompile`](Self::precompile) with a name for logs and metrics.
    pub fn precompile_named(&self, source: impl Into<String>, name: Option<String>) -> Call<Compiled> {
        let source = source.into();
        match send_precompile(&self.0.link, &source, name.as_deref()) {
            Ok(pending) => Call::new(async move { Ok(Compiled::new(source, name, compiled(pending.await?)?)) }),
            Err(error) => Call::failed(error),
        }
    }

    /// Goes on with an execution: the answer to one of its extension calls.
    pub fn resume(&self, suspension: &str, resolution: Resolution) -> Call<Segment> {
        self.request(&resume_message(suspension, &resolution), segment)
    }

    /// Stops an execution that is suspended. Whether there was one. (One that runs is stopped by dropping its call.)
    pub fn cancel(&self, target: &CancelTarget) -> Call<bool> {
        let CancelTarget::Suspension(suspension) = target;
        self.request(&ClientMessage::Cancel(Cancel::Suspension(suspension)), |answer| match answer {
            Answer::Done(cancelled) => Ok(cancelled),
            _ => Err(UNEXPECTED),
        })
    }

    /// Compiles a handler, without keeping it, and tells what it needs.
    pub fn check(&self, source: &str) -> Call<Checked> {
        self.request(&ClientMessage::Check(message::Check { source }), |answer| match answer {
            Answer::Checked(checked) => Ok(checked),
            _ => Err(UNEXPECTED),
        })
    }

    /// The capabilities that a handler needs, as far as its text tells.
    pub fn infer_capabilities(&self, source: &str) -> Call<Vec<String>> {
        let check = self.check(source);
        Call::new(async move { Ok(check.await?.capabilities) })
    }

    /// The sidecar's figures.
    pub fn stats(&self) -> Call<Stats> {
        self.request(&ClientMessage::Stats, |answer| match answer {
            Answer::Stats(stats) => Ok(*stats),
            _ => Err(UNEXPECTED),
        })
    }

    /// The sidecar's metrics in the text format of Prometheus.
    pub fn metrics(&self) -> Call<String> {
        self.request(&ClientMessage::Metrics, |answer| match answer {
            Answer::Metrics(text) => Ok(text),
            _ => Err(UNEXPECTED),
        })
    }

    /// Whether the sidecar answers.
    pub fn ping(&self) -> Call<()> {
        self.request(&ClientMessage::Ping, |answer| match answer {
            Answer::Pong => Ok(()),
            _ => Err(UNEXPECTED),
        })
    }

    /// Lets what runs finish, then ends the connection, and the sidecar if it was spawned. Done when that has happened.
    pub fn shutdown(&self) -> Call<()> {
        let closed = self.0.link.closed();
        let done = self.request(&ClientMessage::Shutdown, |answer| match answer {
            Answer::Done(_) => Ok(()),
            _ => Err(UNEXPECTED),
        });
        Call::new(async move {
            done.await?;
            closed.await;
            Ok(())
        })
    }

    /// Version of the sidecar.
    pub fn build(&self) -> &str {
        &self.0.link.greeting.build
    }

    /// Digest of the sidecar's guest module.
    pub fn engine(&self) -> &str {
        &self.0.link.greeting.engine
    }

    /// Process id of the sidecar, as it says.
    pub fn pid(&self) -> u32 {
        self.0.link.greeting.pid
    }

    /// Process id of the child, if the sidecar was spawned.
    pub fn child_pid(&self) -> Option<u32> {
        self.0.child_pid
    }

    /// Whether errors carry stacks and snippets.
    pub fn is_debug(&self) -> bool {
        self.0.link.greeting.debug
    }

    /// The limits in force.
    pub fn limits(&self) -> HelloLimits {
        self.0.link.greeting.limits
    }

    fn request<T: Send + 'static>(
        &self,
        message: &ClientMessage<'_>,
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + 'static,
    ) -> Call<T> {
        match self.0.link.send(message) {
            Ok(pending) => Call::new(async move { read(pending.await?) }),
            Err(error) => Call::failed(error),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("pid", &self.pid()).field("build", &self.build()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Fails only where the connection has ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = lock(&self.reader).take()
            && reader.thread().id() != thread::current().id()
        {
            // A reader that panicked has dropped, and so reaped, the child.
            let _ = reader.join();
        }
    }
}

pub(crate) const UNEXPECTED: Error = Error::protocol("an answer of another kind than its request");

pub(crate) fn segment(answer: Answer) -> Result<Segment, Error> {
    match answer {
        Answer::Segment(segment) => Ok(*segment),
        _ => Err(UNEXPECTED),
    }
}

fn compiled(answer: Answer) -> Result<CompiledParts, Error> {
    match answer {
        Answer::Compiled(parts) => Ok(*parts),
        _ => Err(UNEXPECTED),
    }
}

pub(crate) fn resume_message<'a>(suspension: &'a str, resolution: &'a Resolution) -> ClientMessage<'a> {
    let resolution = match resolution {
        Resolution::Value(value) => message::Resolution::Value(Some(value.as_bytes())),
        Resolution::Failure(error) => message::Resolution::Failure(CallFailure {
            message: error.message(),
            name: error.name(),
            code: error.code(),
        }),
    };
    ClientMessage::Resume(Resume { suspension, resolution })
}

fn send_precompile(link: &Arc<Link>, source: &str, handler_name: Option<&str>) -> Result<Pending, Error> {
    link.send(&ClientMessage::Precompile(Precompile { source, handler_name, suspend_mode: None }))
}

fn send_execute(link: &Arc<Link>, handler: &Handler, context: &Context) -> Result<Pending, Error> {
    let code = handler.to_send();
    let mut request = context.request(code.code())?;
    request.resident = context.resident_on(link)?;
    link.send(&ClientMessage::Execute(request))
}

/// Sends an execute at once, and its answer later. A compiled handler that the sidecar does not know is compiled again,
/// once. `request_id` follows the request that is under way, so that it can be cancelled.
pub(crate) fn start_execution(
    link: &Arc<Link>,
    handler: Handler,
    context: Context,
    request_id: Arc<Mutex<u32>>,
) -> Result<impl Future<Output = Result<Segment, Error>> + Send + use<>, Error> {
    let link = Arc::clone(link);
    let first = send_execute(&link, &handler, &context)?;
    *lock(&request_id) = first.id();
    Ok(async move {
        let answer = first.await.and_then(segment);
        let Handler::Compiled(compiled_handler) = &handler else { return answer };
        if !says_unknown_handler(&answer) {
            return answer;
        }
        let name = compiled_handler.name().or(context.label());
        let parts = compiled(send_precompile(&link, compiled_handler.source(), name)?.await?)?;
        compiled_handler.replace(parts);
        let second = send_execute(&link, &handler, &context)?;
        *lock(&request_id) = second.id();
        second.await.and_then(segment)
    })
}

fn says_unknown_handler(answer: &Result<Segment, Error>) -> bool {
    let error = match answer {
        Ok(segment) => segment.error.as_ref(),
        Err(error) => error.as_wire(),
    };
    error.is_some_and(|error| error.code == ErrorCode::InvalidHandler && error.retryable)
}
