//! The client: one connection to one sidecar.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::thread;

use nexus_protocol::ClientMessage;
use nexus_protocol::message::{self, CallFailure, Precompile, Resume};
use serde::Serialize;

use crate::attempt::Attempt;
use crate::call::Call;
use crate::compiled::{Checked, Compiled, CompiledParts, Handler, says_unknown_handler};
use crate::context::Context;
use crate::error::{Error, StartError};
use crate::executions::ExecutionInfo;
use crate::extensions::CallError;
use crate::held::Held;
use crate::link::{Answer, Link, Pending, PlaceHeld, UNEXPECTED, answered};
use crate::many;
use crate::options::ClientOptions;
use crate::payload::Payload;
use crate::request::{ExecuteRequest, PrecompileRequest, RunRequest};
use crate::resident::ResidentState;
use crate::run::{Outcome, Run};
use crate::run_options::RunOptions;
use crate::segment::Segment;
use crate::session::{Found, Origin, Sessions};
use crate::slot::{Slot, lock};
use crate::spawn::SpawnOptions;
use crate::told::{SidecarLimits, Stats, SuspendMode};
use crate::workers::Workers;

/// A connection to a sidecar. Clones share it, and any thread may use it.
///
/// A sidecar that has gone is started again by the next call, see [`RestartPolicy`](crate::RestartPolicy); calls never
/// move from one sidecar to another. When the last clone is dropped the connection ends, calls that are still under way
/// fail with `SIDECAR_GONE`, and a sidecar that was spawned ends, or is killed where it does not; a thread of the client's reaps
/// it. The drop waits for none of that; [`shutdown`](Self::shutdown) does.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    sessions: Arc<Sessions>,
    workers: Arc<Workers>,
    held: Arc<Held>,
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
#[non_exhaustive]
pub enum Resolution {
    /// With a value.
    Value(Payload),
    /// With an error, which is thrown inside the handler.
    Failure(CallError),
}

impl Client {
    /// Starts a sidecar as a child of this process. Done when it is ready; the start begins now, polled or not, on a thread of its
    /// own, and ends when the call is dropped.
    pub fn spawn(options: SpawnOptions) -> Call<Self> {
        let client = options.client_options();
        Self::start(Origin::Spawn(Box::new(options)), client)
    }

    /// Connects to a sidecar that listens on a socket; connects again when the connection has ended. As [`spawn`](Self::spawn) it
    /// begins now.
    pub fn connect(path: impl AsRef<Path>) -> Call<Self> {
        Self::connect_with(path, ClientOptions::default())
    }

    /// [`connect`](Self::connect) with options, or only a [`RestartPolicy`](crate::RestartPolicy).
    pub fn connect_with(path: impl AsRef<Path>, options: impl Into<ClientOptions>) -> Call<Self> {
        Self::start(Origin::Connect(path.as_ref().to_owned()), options.into())
    }

    fn start(origin: Origin, options: ClientOptions) -> Call<Self> {
        let starting = Starting { attempt: Arc::default(), slot: Slot::new() };
        let (attempt, slot) = (Arc::clone(&starting.attempt), Arc::clone(&starting.slot));
        let start = move || {
            let started = Sessions::start(origin, options, &attempt).map(|sessions| {
                let workers = Arc::new(Workers::new(options.max_blocking_calls));
                Self(Arc::new(Inner { sessions, workers, held: Arc::default() }))
            });
            // One that nobody waits for any more ends again.
            drop(slot.fill(started));
        };
        match thread::Builder::new().name("nexus-start".to_owned()).spawn(start) {
            Ok(_) => Call::new(starting),
            Err(source) => Call::failed(StartError::Spawn { path: "a thread".into(), source }.into()),
        }
    }

    /// Begins a call on the sidecar that there is, now; or on the next one, once it has started.
    fn begin<T, F>(&self, begin: impl FnOnce(Arc<Link>) -> Result<F, Error> + Send + 'static) -> Call<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.0.sessions.find() {
            Found::Present(link) => match begin(link) {
                Ok(future) => Call::new(future),
                Err(error) => Call::failed(error),
            },
            Found::Starting(slot) => Call::new(async move {
                let link = poll_fn(|context| slot.poll(context)).await?;
                begin(link)?.await
            }),
            Found::Refused(error) => Call::failed(error),
        }
    }

    /// Runs a handler to its first suspension or its end. A failed handler is a segment with an `error`.
    ///
    /// ```no_run
    /// # use nexus_client::{Client, ErrorCode, SpawnOptions, StateMutation};
    /// # fn main() -> Result<(), nexus_client::Error> {
    /// # let client = Client::spawn(SpawnOptions::new()).wait()?;
    /// let request = client.execute("$state.n += 1; return $state.n").state(&serde_json::json!({ "n": 1 }));
    /// let segment = request.grants(["state:read:n", "state:write:n"]).wait()?;
    /// assert_eq!(segment.value::<u32>()?, 2);
    /// for mutation in segment.state_mutations()? {
    ///     if let StateMutation::Set { key, value } = mutation {
    ///         println!("{key} = {}", value.decode::<u32>()?);
    ///     }
    /// }
    /// let failed = client.execute("null.x").wait()?.error.expect("it throws");
    /// assert_eq!(failed.code, ErrorCode::ExecutionError);
    /// println!("{} at {:?}", failed.message, failed.location);
    /// # Ok(())
    /// # }
    /// ```
    pub fn execute(&self, handler: impl Into<Handler>) -> ExecuteRequest {
        ExecuteRequest::new(self.clone(), handler.into())
    }

    pub(crate) fn start_execute(&self, handler: Handler, context: Context) -> Call<Segment> {
        let held = Arc::clone(&self.0.held);
        self.begin(move |link| {
            let execution = start_execution(&link, handler, context, Arc::default(), Sending::Listed)?;
            Ok(async move {
                let segment = execution.await?;
                held.note(&link, &segment);
                Ok(segment)
            })
        })
    }

    /// Runs a handler on many contexts in one request, one after another, each isolated from the next. Results come in the order of the
    /// contexts: each is what [`execute`](Self::execute) gives, or the error that it would fail with; a handler that calls an
    /// extension is suspended, and goes on with [`resume`](Self::resume). Dropping the call ends what is left.
    ///
    /// ```no_run
    /// # use nexus_client::{Client, Context, SpawnOptions};
    /// # fn main() -> Result<(), nexus_client::Error> {
    /// # let client = Client::spawn(SpawnOptions::new()).wait()?;
    /// let rows = [1.5, 2.0, 4.0].map(|price| Context::new().args(&price));
    /// for row in client.run_many("return $args * 1.19", rows).wait()? {
    ///     println!("{}", row?.into_result()?.value::<f64>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_many(
        &self,
        handler: impl Into<Handler>,
        contexts: impl IntoIterator<Item = Context>,
    ) -> Call<Vec<Result<Segment, Error>>> {
        let handler = handler.into();
        self.run_many_of(contexts.into_iter().map(|context| (handler.clone(), context)))
    }

    /// [`run_many`](Self::run_many) of handlers that differ.
    pub fn run_many_of<H: Into<Handler>>(
        &self,
        items: impl IntoIterator<Item = (H, Context)>,
    ) -> Call<Vec<Result<Segment, Error>>> {
        let items: Vec<many::Item> = items.into_iter().map(|(handler, context)| (handler.into(), context)).collect();
        let held = Arc::clone(&self.0.held);
        self.begin(move |link| many::start(link, held, items))
    }

    /// Runs a handler to its end, extension calls included. A failed handler is an error, which [tells](crate::FailedRun) what had
    /// happened. Where no capability is named the extensions that are handed over are granted, and nothing else. An extension
    /// call that takes longer than `suspensionTimeoutMs` fails in the handler, which may catch it (code `TIMEOUT`); its future is
    /// dropped. Dropping the call, or cancelling its token, ends the execution. For an example see [`RunRequest`].
    pub fn run(&self, handler: impl Into<Handler>) -> RunRequest {
        RunRequest::new(self.clone(), handler.into())
    }

    pub(crate) fn start_run(&self, handler: Handler, context: Context, options: RunOptions) -> Call<Outcome> {
        let workers = Arc::clone(&self.0.workers);
        // While a sidecar starts nothing polls the run, and with it the token.
        let token = options.cancel.clone();
        let call = self.begin(move |link| Run::start(link, workers, handler, context, options));
        match token {
            Some(token) if !matches!(self.0.sessions.find(), Found::Present(_)) => call.cancel_on(&token),
            _ => call,
        }
    }

    /// Compiles a handler ahead of its first execution. What comes back is a signed handle, never bytecode, with the source
    /// beside it: a sidecar that does not know it (any more) compiles it again.
    ///
    /// ```no_run
    /// # use nexus_client::{Client, SpawnOptions};
    /// # fn main() -> Result<(), nexus_client::Error> {
    /// # let client = Client::spawn(SpawnOptions::new()).wait()?;
    /// let double = client.precompile("return $args * 2").wait()?;
    /// let outcome = client.run(&double).args(&21).wait()?;
    /// assert_eq!(outcome.value::<u32>()?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn precompile(&self, source: impl Into<String>) -> PrecompileRequest {
        PrecompileRequest::new(self.clone(), source.into())
    }

    pub(crate) fn start_precompile(
        &self,
        source: String,
        name: Option<String>,
        asked: Option<SuspendMode>,
    ) -> Call<Compiled> {
        self.begin(move |link| {
            let pending = send_precompile(&link, &source, name.as_deref(), asked)?;
            Ok(async move { Ok(Compiled::new(source, name, asked, compiled(pending.await?)?)) })
        })
    }

    /// Goes on with an execution: the answer to one of its extension calls. ([`run`](Self::run) does all this by itself.)
    ///
    /// ```no_run
    /// # use nexus_client::{Client, Context, Payload, Resolution, SpawnOptions};
    /// # fn main() -> Result<(), nexus_client::Error> {
    /// # let client = Client::spawn(SpawnOptions::new()).wait()?;
    /// let context = Context::new().grant("ext:http.get");
    /// let mut segment = client.execute("return (await $ext.http.get('/a')).length").context(&context).wait()?;
    /// while let Some(call) = segment.suspension() {
    ///     let (url,): (String,) = call.args.decode()?;
    ///     let body = Payload::encode(&format!("what is at {url}"))?;
    ///     segment = client.resume(&call.id, Resolution::Value(body)).wait()?;
    /// }
    /// println!("{}", segment.into_result()?.value::<u32>()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A suspension of a sidecar that has gone is
    /// gone with it (`SUSPENSION_ERROR`).
    pub fn resume(&self, suspension: &str, resolution: Resolution) -> Call<Segment> {
        let (suspension, held) = (suspension.to_owned(), Arc::clone(&self.0.held));
        self.begin(move |link| {
            held.check(&suspension, &link)?;
            let pending = link.send_listed(resume_message(&suspension, &resolution))?;
            Ok(async move {
                let segment = segment(pending.await.map_err(Error::midway)?)?;
                held.note(&link, &segment);
                Ok(segment)
            })
        })
    }

    /// Stops an execution that is suspended. Whether there was one. (One that runs is stopped by dropping its call, or by
    /// [`Call::cancel_on`].)
    pub fn cancel(&self, target: &CancelTarget) -> Call<bool> {
        let CancelTarget::Suspension(suspension) = target.clone();
        let held = Arc::clone(&self.0.held);
        self.begin(move |link| {
            held.check(&suspension, &link)?;
            let pending = link.send_cancel(&suspension)?;
            Ok(async move { answered!(pending.await?, Answer::Done(cancelled) => cancelled) })
        })
    }

    /// Compiles a handler, without keeping it, and tells what it needs.
    pub fn check(&self, source: &str) -> Call<Checked> {
        let source = source.to_owned();
        self.begin(move |link| {
            let pending = link.send(ClientMessage::Check(message::Check { source: &source }))?;
            Ok(async move { answered!(pending.await?, Answer::Checked(checked) => checked) })
        })
    }

    /// The capabilities that a handler needs, as far as its text tells.
    pub fn infer_capabilities(&self, source: &str) -> Call<Vec<String>> {
        let check = self.check(source);
        Call::new(async move { Ok(check.await?.capabilities) })
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
        let state = state.clone();
        self.begin(move |link| Ok(ResidentState::create(&link, &state)))
    }

    /// The sidecar's figures.
    pub fn stats(&self) -> Call<Stats> {
        self.request(ClientMessage::Stats, |answer| answered!(answer, Answer::Stats(stats) => Stats::of(&stats)))
    }

    /// The executions that the sidecar holds, also those of other clients: at most 1,000 of them, and how many there are.
    pub fn executions(&self) -> Call<(Vec<ExecutionInfo>, u64)> {
        self.request(
            ClientMessage::Executions,
            |answer| answered!(answer, Answer::Executions(executions, total) => (executions, total)),
        )
    }

    /// Ends an execution of any client by its id in that list. False: there was none.
    pub fn kill_execution(&self, execution: u64) -> Call<bool> {
        self.request(
            ClientMessage::Kill(message::Kill { execution }),
            |answer| answered!(answer, Answer::Done(killed) => killed),
        )
    }

    /// The sidecar's metrics in the text format of Prometheus, as `/metrics` of its HTTP endpoint has them.
    pub fn metrics(&self) -> Call<String> {
        self.request(ClientMessage::Metrics, |answer| answered!(answer, Answer::Metrics(text) => text))
    }

    /// Whether the sidecar answers.
    pub fn ping(&self) -> Call<()> {
        self.request(ClientMessage::Ping, |answer| answered!(answer, Answer::Pong => ()))
    }

    /// Lets what runs finish, then ends the connection, and the sidecar if it was spawned. Done when that has happened, also
    /// where the sidecar ended by itself or was just starting; later calls fail. It begins now, polled or not.
    pub fn shutdown(&self) -> Call<()> {
        let starting = self.0.sessions.retire();
        let link = self.0.sessions.last();
        link.draining.store(true, Ordering::Relaxed);
        let closed = link.closed();
        let sent = link.send(ClientMessage::Shutdown);
        Call::new(async move {
            if let Some(starting) = starting {
                // Its failure is what was asked for.
                let _ = poll_fn(|context| starting.poll(context)).await;
            }
            let answer = match sent {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Answer::Done(_)) => {}
                Ok(_) => return Err(UNEXPECTED),
                Err(_) if link.is_closed() => {}
                Err(error) => return Err(error),
            }
            closed.await;
            Ok(())
        })
    }

    /// Version of the sidecar, the present one or the last.
    pub fn build(&self) -> String {
        self.0.sessions.last().greeting.build.clone()
    }

    /// Digest of the sidecar's guest module.
    pub fn engine(&self) -> String {
        self.0.sessions.last().greeting.engine.clone()
    }

    /// Process id of the sidecar, as it says.
    pub fn pid(&self) -> u32 {
        self.0.sessions.last().greeting.pid
    }

    /// Process id of the child, if the sidecar was spawned.
    pub fn child_pid(&self) -> Option<u32> {
        self.0.sessions.child_pid()
    }

    /// Whether errors carry stacks and snippets.
    pub fn is_debug(&self) -> bool {
        self.0.sessions.last().greeting.debug
    }

    /// The limits in force.
    pub fn limits(&self) -> SidecarLimits {
        SidecarLimits::of(&self.0.sessions.last().greeting.limits)
    }

    fn request<T: Send + 'static>(
        &self,
        message: ClientMessage<'static>,
        read: impl FnOnce(Answer) -> Result<T, Error> + Send + 'static,
    ) -> Call<T> {
        self.begin(move |link| {
            let pending = link.send(message)?;
            Ok(async move { read(pending.await?) })
        })
    }
}

/// The first start, until somebody has taken what came of it.
struct Starting {
    attempt: Arc<Attempt>,
    slot: Arc<Slot<Result<Client, Error>>>,
}

impl Future for Starting {
    type Output = Result<Client, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.slot.poll(context)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.attempt.end();
        drop(self.slot.abandon());
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("pid", &self.pid()).field("build", &self.build()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sessions.end();
    }
}

pub(crate) fn segment(answer: Answer) -> Result<Segment, Error> {
    answered!(answer, Answer::Segment(segment) => *segment)
}

fn compiled(answer: Answer) -> Result<CompiledParts, Error> {
    answered!(answer, Answer::Compiled(parts) => *parts)
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
    ClientMessage::Resume(Resume::new(suspension, resolution))
}

fn send_precompile(
    link: &Arc<Link>,
    source: &str,
    handler_name: Option<&str>,
    suspend_mode: Option<SuspendMode>,
) -> Result<Pending, Error> {
    link.send(ClientMessage::Precompile(Precompile {
        source,
        handler_name,
        suspend_mode: suspend_mode.map(SuspendMode::wire),
    }))
}

fn send_execute(link: &Arc<Link>, handler: &Handler, context: &Context, sending: &Sending) -> Result<Pending, Error> {
    let code = handler.to_send();
    let mut request = context.request(code.code())?;
    request.resident = context.resident_on(link)?;
    let message = ClientMessage::Execute(request);
    match sending {
        Sending::Listed => link.send_listed(message),
        Sending::At(place) => link.send_at(message, place.as_ref()),
    }
}

/// Who keeps the list of an execution's calls.
pub(crate) enum Sending {
    /// The connection, since its segments go to a caller each.
    Listed,
    /// A run, which may have to wait for this place.
    At(Option<Arc<PlaceHeld>>),
}

/// Sends an execute at once, and its answer later. A compiled handler that the sidecar does not know is compiled again,
/// once. `request_id` follows the request that is under way, so that it can be cancelled.
pub(crate) fn start_execution(
    link: &Arc<Link>,
    handler: Handler,
    context: Context,
    request_id: Arc<Mutex<u32>>,
    sending: Sending,
) -> Result<impl Future<Output = Result<Segment, Error>> + Send + use<>, Error> {
    let link = Arc::clone(link);
    let first = send_execute(&link, &handler, &context, &sending)?;
    *lock(&request_id) = first.id();
    Ok(async move {
        let answer = first.await.and_then(segment);
        let Handler::Compiled(compiled_handler) = &handler else { return answer };
        if !says_unknown_handler(&answer) {
            return answer;
        }
        let name = compiled_handler.name().or(context.label());
        let asked = compiled_handler.asked_mode();
        let parts = compiled(send_precompile(&link, compiled_handler.source(), name, asked)?.await?)?;
        compiled_handler.replace(parts);
        let second = send_execute(&link, &handler, &context, &sending)?;
        *lock(&request_id) = second.id();
        second.await.and_then(segment)
    })
}
