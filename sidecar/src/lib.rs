//! nexus-sidecar: a sandbox for untrusted JavaScript handlers that a program can spawn.

/// The command line.
pub mod cli;
/// Typed configuration: defaults, bounds, and where each value came from.
pub mod config;
/// QuickJS in WasmEdge: one instance, its pristine image, its limits.
pub mod engine;
/// Errors of starting, and exit codes.
pub mod error;
/// Metrics, statistics, log.
pub mod observe;
/// System calls that need unsafe code.
pub mod os;
