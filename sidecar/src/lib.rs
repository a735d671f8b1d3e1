//! nexus-sidecar: a sandbox for untrusted JavaScript handlers that a program can spawn.

/// Types out, capabilities inferred, suspend mode chosen: what is known of a handler without running it.
pub mod analysis;
/// Bytes that are counted for as long as they are there.
pub mod budget;
/// Compiled handlers and the handles that name them.
pub mod cache;
/// The command line.
pub mod cli;
/// What each command does.
pub mod commands;
/// Typed configuration: defaults, bounds, and where each value came from.
pub mod config;
/// QuickJS in WasmEdge: one instance, its pristine image, its limits.
pub mod engine;
/// Errors of starting, and exit codes.
pub mod error;
/// One execution, from its first segment to its end.
pub mod execution;
/// Faults on purpose, for tests.
pub mod faults;
/// Refused, or out of time.
pub mod halt;
/// Metrics and health over HTTP.
pub mod http;
/// Signals, the parent, the service manager, the end of the process.
pub mod lifecycle;
/// Metrics, statistics, log.
pub mod observe;
/// System calls that need unsafe code.
pub mod os;
/// Pristine instances, ready to run.
pub mod pool;
/// One pool for each guest.
pub mod pools;
#[cfg(test)]
mod random;
/// States that stay between executions.
pub mod resident;
/// Compile, execute, resume: everything but the transport.
pub mod runtime;
/// Shared memory for large payloads.
pub mod segments;
/// The `serve` command.
pub mod serve;
/// Connections in, answers out.
pub mod server;
/// Whether a request still has time.
pub mod token;
