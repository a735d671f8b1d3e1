//! Requests as they are put together: `client.run(code).args(&x).grant(..).await`.
//!
//! Invariant: nothing is sent before the request is awaited, waited for or started; then it is one [`Call`], and nothing of the
//! request is left.

use std::future::IntoFuture;
use std::time::Duration;

use serde::Serialize;

use crate::SuspendMode;
use crate::call::Call;
use crate::client::Client;
use crate::compiled::{Compiled, Handler};
use crate::context::{Context, Limits};
use crate::error::Error;
use crate::payload::Payload;
use crate::resident::ResidentState;
use crate::run::Outcome;
use crate::run_options::{RunOptions, run_option_methods};
use crate::running::{Running, Told};
use crate::segment::{Log, Segment};

/// A handler to be run to its end, from [`Client::run`]: `.await` it, or [`wait`](Self::wait), [`start`](Self::start),
/// [`stream`](Self::stream).
///
/// ```no_run
/// # use nexus_client::{Client, Error, Extensions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let greeter = Extensions::new().method("greeter", "greet", |args| Ok(format!("Hello, {}!", args.get::<String>(0)?)));
/// let outcome = client.run("return await $ext.greeter.greet($args)").args("Ada").extensions(greeter).await?;
/// assert_eq!(outcome.value::<String>()?, "Hello, Ada!");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited, waited for or started"]
pub struct RunRequest {
    client: Client,
    handler: Handler,
    context: Context,
    options: RunOptions,
}

/// A handler to be run to its first suspension or its end, from [`Client::execute`]: `.await` it, or [`wait`](Self::wait),
/// [`start`](Self::start).
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited, waited for or started"]
pub struct ExecuteRequest {
    client: Client,
    handler: Handler,
    context: Context,
}

/// A handler to be compiled ahead of its first execution, from [`Client::precompile`]: `.await` it, or [`wait`](Self::wait),
/// [`start`](Self::start).
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited, waited for or started"]
pub struct PrecompileRequest {
    client: Client,
    source: String,
    name: Option<String>,
    suspend_mode: Option<SuspendMode>,
}

/// What a context says, said of a request.
macro_rules! context_methods {
    ($($(#[$doc:meta])* $name:ident $([$($generic:tt)*])? ($($argument:ident: $type:ty),*);)*) => {
        context_methods!(@of RunRequest, $($(#[$doc])* $name [$($($generic)*)?] ($($argument: $type),*);)*);
        context_methods!(@of ExecuteRequest, $($(#[$doc])* $name [$($($generic)*)?] ($($argument: $type),*);)*);
    };
    (@of $request:ident, $($(#[$doc:meta])* $name:ident [$($generic:tt)*] ($($argument:ident: $type:ty),*);)*) => {
        impl $request {
            /// Takes all that a context says, in place of what was said before.
            pub fn context(mut self, context: &Context) -> Self {
                self.context = context.clone();
                self
            }

            $($(#[$doc])*
            pub fn $name<$($generic)*>(mut self, $($argument: $type),*) -> Self {
                self.context = self.context.$name($($argument),*);
                self
            })*
        }
    };
}

context_methods! {
    /// For logs and metrics.
    panel_id[S: Into<String>](id: S);
    /// For logs and metrics.
    handler_name[S: Into<String>](name: S);
    /// `$state`: a map or struct. What the grants do not cover never reaches the handler.
    state[T: Serialize + ?Sized](state: &T);
    /// `$state`, as MessagePack.
    state_payload(state: Payload);
    /// `$state`: a state that stays with the sidecar. Mutations are applied to it.
    resident(state: &ResidentState);
    /// See [`Context::resident_exclusive`].
    resident_exclusive(state: &ResidentState);
    /// See [`Context::resident_at`].
    resident_at(state: &ResidentState, version: u64);
    /// `$args`.
    args[T: Serialize + ?Sized](args: &T);
    /// `$args`, as MessagePack.
    args_payload(args: Payload);
    /// `$scope`.
    scope[T: Serialize + ?Sized](scope: &T);
    /// `$scope`, as MessagePack.
    scope_payload(scope: Payload);
    /// Adds a capability token, `state:read:count` for example.
    grant[S: Into<String>](token: S);
    /// Adds capability tokens. With none of them nothing is granted, whatever a run is handed.
    grants[S: Into<String>, I: IntoIterator<Item = S>](tokens: I);
    /// Running and queueing time of the whole execution; counted in whole milliseconds, at least one.
    timeout(timeout: Duration);
    /// Narrower limits.
    limits(limits: Limits);
    /// Refuses the handler before it runs when the grants cannot suffice.
    strict_capabilities(strict: bool);
    /// How extension calls suspend. Without this, the handler's text decides.
    suspend_mode(mode: SuspendMode);
    /// Seed of `Math.random`.
    seed(seed: u64);
}

run_option_methods! {
    RunRequest,
    /// Lets another part of the program end the run. It is over when the sidecar has said what became of it.
}

impl RunRequest {
    pub(crate) fn new(client: Client, handler: Handler) -> Self {
        Self { client, handler, context: Context::new(), options: RunOptions::default() }
    }

    /// Called at once for each segment, in order, the last one included, also when the run fails. It runs where the
    /// run is polled or waited for, and must not block long.
    pub fn on_segment(mut self, callback: impl FnMut(&Segment) + Send + 'static) -> Self {
        self.options.on_segment = Some(Box::new(callback));
        self
    }

    /// Called for each record that the handler logs, while it runs (at most 50 ms late), in order, each once and before its segment,
    /// which has it too. It runs where the run is polled or waited for, and must not block long.
    pub fn on_log(mut self, mut callback: impl FnMut(&Log) + Send + 'static) -> Self {
        self.options.on_log = Some(Box::new(move |log| callback(&log)));
        self
    }

    /// Sends it now. The call does not keep the client: when the last clone of that is dropped, it fails.
    pub fn start(self) -> Call<Outcome> {
        self.client.start_run(self.handler, self.context, self.options)
    }

    /// Sends it now. What it does comes piece by piece.
    pub fn stream(self) -> Running {
        let Self { client, handler, context, mut options } = self;
        let told = Told::default();
        told.hear(&mut options);
        Running::new(client.start_run(handler, context, options), told)
    }

    /// Sends it, and blocks this thread until it is done. Not for use within an executor's thread.
    pub fn wait(self) -> Result<Outcome, Error> {
        self.start().wait()
    }
}

impl IntoFuture for RunRequest {
    type Output = Result<Outcome, Error>;
    type IntoFuture = Call<Outcome>;

    fn into_future(self) -> Call<Outcome> {
        self.start()
    }
}

impl ExecuteRequest {
    pub(crate) fn new(client: Client, handler: Handler) -> Self {
        Self { client, handler, context: Context::new() }
    }

    /// The extensions that there are, and their methods: calls of others are refused.
    pub fn extension_registry(mut self, extensions: Vec<(String, Vec<String>)>) -> Self {
        self.context = self.context.extension_registry(extensions);
        self
    }

    /// Sends it now. The call does not keep the client: when the last clone of that is dropped, it fails.
    pub fn start(self) -> Call<Segment> {
        self.client.start_execute(self.handler, self.context)
    }

    /// Sends it, and blocks this thread until the answer is there. Not for use within an executor's thread.
    pub fn wait(self) -> Result<Segment, Error> {
        self.start().wait()
    }
}

impl IntoFuture for ExecuteRequest {
    type Output = Result<Segment, Error>;
    type IntoFuture = Call<Segment>;

    fn into_future(self) -> Call<Segment> {
        self.start()
    }
}

impl PrecompileRequest {
    pub(crate) fn new(client: Client, source: String) -> Self {
        Self { client, source, name: None, suspend_mode: None }
    }

    /// For logs and metrics.
    pub fn handler_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How its extension calls suspend, whatever the handler's text says. The handler keeps it: an execution that asks for the other
    /// way is `INVALID_ARGUMENT`.
    pub fn suspend_mode(mut self, mode: SuspendMode) -> Self {
        self.suspend_mode = Some(mode);
        self
    }

    /// Sends it now.
    pub fn start(self) -> Call<Compiled> {
        self.client.start_precompile(self.source, self.name, self.suspend_mode)
    }

    /// Sends it, and blocks this thread until the answer is there. Not for use within an executor's thread.
    pub fn wait(self) -> Result<Compiled, Error> {
        self.start().wait()
    }
}

impl IntoFuture for PrecompileRequest {
    type Output = Result<Compiled, Error>;
    type IntoFuture = Call<Compiled>;

    fn into_future(self) -> Call<Compiled> {
        self.start()
    }
}
