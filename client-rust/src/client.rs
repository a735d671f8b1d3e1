//! The client: one connection to one sidecar.

mod figures;
mod start;

use std::future::{Future, poll_fn};
use std::sync::Arc;

use nexus_protocol::ClientMessage;
use nexus_protocol::message;
use serde::Serialize;

use crate::call::Call;
use crate::compiled::{Checked, Compiled, Handler};
use crate::context::Context;
use crate::error::Error;
use crate::execution::{Resolution, Sending, compiled, resume_message, segment, send_precompile, start_execution};
use crate::held::Held;
use crate::link::{Answer, Link, answered};
use crate::many::{self, ManyRequest, ManyRun};
use crate::payload::Payload;
use crate::request::{ExecuteRequest, PrecompileRequest, RunRequest};
use crate::resident::ResidentState;
use crate::run::{Outcome, Run};
use crate::run_options::RunOptions;
use crate::segment::Segment;
use crate::session::{Found, Sessions};
use crate::token::CancelToken;
use crate::told::SuspendMode;
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

impl Client {
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

    /// Runs a handler on many contexts in one request, one after another, each isolated from the next, and each to its first suspension
    /// or its end. Results come in the order of the contexts: each is what [`execute`](Self::execute) gives, or the error that it would
    /// fail with; what calls an extension goes on with [`resume`](Self::resume). Dropping the call ends what is left.
    /// ([`run_many`](Self::run_many) calls extensions by itself.)
    pub fn execute_many(
        &self,
        handler: impl Into<Handler>,
        contexts: impl IntoIterator<Item = Context>,
    ) -> Call<Vec<Result<Segment, Error>>> {
        let handler = handler.into();
        self.execute_many_of(contexts.into_iter().map(|context| (handler.clone(), context)))
    }

    /// [`execute_many`](Self::execute_many) of handlers that differ.
    pub fn execute_many_of<H: Into<Handler>>(
        &self,
        items: impl IntoIterator<Item = (H, Context)>,
    ) -> Call<Vec<Result<Segment, Error>>> {
        let items = many::items(items.into_iter().map(|(handler, context)| (handler.into(), context)));
        let held = Arc::clone(&self.0.held);
        self.begin(move |link| Ok(many::execute(link, held, items)))
    }

    /// Runs a handler on many contexts in one request, one after another, each isolated from the next, and each to its end, extension
    /// calls included. Results come in the order of the contexts: each is what [`run`](Self::run) gives, or the error that it would
    /// fail with. Dropping the call ends what is left. Where extensions are handed over, as many contexts are begun at once as
    /// may be suspended, at most 100. For extensions and more see [`ManyRequest`].
    ///
    /// ```no_run
    /// # use nexus_client::{Client, Context, SpawnOptions};
    /// # fn main() -> Result<(), nexus_client::Error> {
    /// # let client = Client::spawn(SpawnOptions::new()).wait()?;
    /// let rows = [1.5, 2.0, 4.0].map(|price| Context::new().args(&price));
    /// for row in client.run_many("return $args * 1.19", rows).wait()? {
    ///     println!("{}", row?.value::<f64>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_many(&self, handler: impl Into<Handler>, contexts: impl IntoIterator<Item = Context>) -> ManyRequest {
        let handler = handler.into();
        ManyRequest::new(self.clone(), contexts.into_iter().map(|context| (handler.clone(), context)))
    }

    /// [`run_many`](Self::run_many) of handlers that differ.
    pub fn run_many_of<H: Into<Handler>>(&self, items: impl IntoIterator<Item = (H, Context)>) -> ManyRequest {
        ManyRequest::new(self.clone(), items.into_iter().map(|(handler, context)| (handler.into(), context)))
    }

    pub(crate) fn start_run_many(
        &self,
        items: Vec<many::Item>,
        mut options: RunOptions,
    ) -> Call<Vec<Result<Outcome, Error>>> {
        let token = options.cancel.take();
        if token.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Call::failed(Error::Cancelled);
        }
        let workers = Arc::clone(&self.0.workers);
        let call = self.begin(move |link| Ok(ManyRun::start(link, workers, items, options)));
        match token {
            Some(token) => call.cancel_on(&token),
            None => call,
        }
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
