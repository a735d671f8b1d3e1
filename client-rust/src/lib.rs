//! Rust client of nexus-sidecar: starts one or connects to one, runs handlers in it, serves their extension calls.
//!
//! ```no_run
//! use nexus_client::{Client, Extensions, SpawnOptions};
//!
//! # fn main() -> Result<(), nexus_client::Error> {
//! let client = Client::spawn(SpawnOptions::new()).wait()?;
//! let extensions = Extensions::new().method("greeter", "greet", |args| {
//!     let name: String = args.get(0)?;
//!     Ok(format!("Hello, {name}!"))
//! });
//! let outcome = client.run("return await $ext.greeter.greet($args)").args("Ada").extensions(extensions).wait()?;
//! assert_eq!(outcome.value::<String>()?, "Hello, Ada!");
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  caller's threads                 one reader thread             worker threads (on demand, bounded)
//!  +------------------+  frames     +---------------------+       +----------------------------------+
//!  | Client, Call<T>  |--- write -->| socket -> answers   |       | extension functions that block   |
//!  |   poll or wait() |<-- wake ----| -> slot of the call |       | -> slot of the run               |
//!  +------------------+             +---------------------+       +----------------------------------+
//! ```
//!
//! Every request is a [`Call`]: a future for any executor, or [`Call::wait`] to block. It is sent when it is made, not when it is
//! first polled, so that several can be under way. Dropping a call cancels it. Handlers are run by requests that are put together
//! first ([`RunRequest`], [`ExecuteRequest`]), and sent when they are awaited, waited for or started.
//!
//! A sidecar that dies fails what was under way; the next call starts another, after a wait where it died young, and with a
//! [crash loop](CrashLoop) as its own error ([`RestartPolicy`]). Compiled handlers live on, suspended executions do not.
//!
//! | what | here | in the Node client |
//! | --- | --- | --- |
//! | start one, or connect to one | [`Client::spawn`], [`Client::connect`] | `new NexusRuntime` |
//! | run to the end, extension calls included | [`Client::run`] | `run` |
//! | the same, piece by piece | [`RunRequest::stream`], [`on_segment`](RunRequest::on_segment), [`on_log`](RunRequest::on_log) | `onSegment`, `onLog` |
//! | the call that an extension answers | [`Args::call`] | `currentCall` |
//! | what a failed run had done | [`Error::as_run`] | `error.segments` and its like |
//! | an error as text for people | [`Error::report`] | `formatError` |
//! | a value of any kind | [`Value`] | plain values |
//! | many in one request | [`Client::run_many`], [`Client::execute_many`] | `runMany` |
//! | run one segment | [`Client::execute`] | `executeHandler`, `executeCompiledHandler` |
//! | go on after an extension call | [`Client::resume`] | `resumeHandler` |
//! | compile ahead | [`Client::precompile`] | `precompileHandler` |
//! | what a handler needs | [`Client::infer_capabilities`], [`Client::check`] | `inferCapabilities`, `checkHandler` |
//! | end a suspended execution | [`Client::cancel`] | `cancel` |
//! | end a call that is under way | drop it; [`CancelToken`] with [`RunRequest::cancel`] or [`Call::cancel_on`] | `signal` |
//! | a state that stays | [`Client::create_state`], [`ResidentState::snapshot`], [`patch`](ResidentState::patch), [`dispose`](ResidentState::dispose) | `createState`, the same |
//! | figures | [`Client::stats`], [`Client::metrics`] (Prometheus), [`Client::ping`] | `getStats`, `getPrometheusMetrics`, `ping` |
//! | what runs, and ending it | [`Client::executions`], [`Client::kill_execution`] | `listExecutions`, `killExecution` |
//! | the end | [`Client::shutdown`], or dropping the last clone | `shutdown`, `await using` |
//!
//! Values go in by serde ([`Context::state`], [`args`](Context::args), [`scope`](Context::scope)) or as bytes of MessagePack
//! ([`Payload`]), and come out the same way. Errors have a [code](Error::code) and say whether to [try again](Error::retryable);
//! a handler's own error has its place in the handler's source ([`Error::as_sidecar`], [`Error::report`]). What the client does by itself, from
//! queueing to shared memory, is in [`ClientOptions`].
//!
//! Nothing here blocks the thread that asks for it, but [`Call::wait`]: not a start, not a request to a sidecar that does not read,
//! not a drop.
//!
//! Invariants: every call ends, with [`ErrorCode::SidecarGone`] when the sidecar vanished; the child is reaped after the
//! last [`Client`] was dropped; nobody waits for the sidecar to read but the thread that is there for it, so that a slow one
//! cannot lock up both ends. What it does not do: repeat a call, or sandbox anything itself.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod alarm;
mod arena;
mod attempt;
mod call;
mod calls;
mod child;
mod client;
mod code;
mod compiled;
mod context;
mod current;
mod date;
mod error;
mod execution;
mod executions;
mod extensions;
mod failed_run;
mod gather;
mod held;
mod limited;
mod limits;
mod link;
mod listed;
mod live_logs;
mod many;
mod options;
mod outbox;
mod patience;
mod payload;
mod places;
mod program;
mod reader;
mod report;
mod request;
mod resident;
mod restart;
mod run;
mod run_options;
mod running;
#[cfg(test)]
mod scheduling_tests;
mod segment;
mod session;
mod settings;
mod sharing;
mod slot;
mod spawn;
mod stats;
mod token;
mod told;
mod value;
mod window;
mod wire;
mod words;
mod workers;

pub use call::Call;
pub use calls::Suspensions;
pub use client::{CancelTarget, Client};
pub use compiled::{Checked, Compiled, Handler, Note};
pub use context::{Context, Limits};
pub use current::CurrentCall;
pub use date::{Date, DateOutOfRange};
pub use error::{CrashLoop, Error, Gone, GoneReason, StartError};
pub use execution::Resolution;
pub use executions::ExecutionInfo;
pub use extensions::{Args, CallError, Extensions};
pub use failed_run::{ExtensionError, FailedRun};
pub use many::ManyRequest;
pub use options::ClientOptions;
pub use payload::{Payload, PayloadError};
pub use program::Unfit;
pub use report::Report;
pub use request::{ExecuteRequest, PrecompileRequest, RunRequest};
pub use resident::{ResidentState, StatePatch, StateSnapshot};
pub use restart::RestartPolicy;
pub use run::Outcome;
pub use running::{Progress, Running};
pub use segment::{Event, Log, Metrics, Segment, StateMutation, Suspension, ViewCommand};
pub use spawn::{LogLevel, SpawnOptions};
pub use token::{CancelToken, Cancelled};
pub use told::{
    Cause, ContextValue, ErrorCode, ExecutionState, Fault, Location, SidecarError, SidecarLimits, Snippet, Stats,
    Status, SuspendMode, Violation,
};
pub use value::Value;
