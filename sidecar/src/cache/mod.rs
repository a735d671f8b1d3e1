//! The compile cache: handlers by the digest of everything that decides their bytecode.
//!
//! Two tiers: memory, and below it a directory that outlives the process and can be shared, see [`disk`]. Each is bounded by
//! bytes and forgets what was used longest ago. One search or compilation per key runs at a time; others that need the same
//! key wait for it. Failures are not kept.

#![forbid(unsafe_code)]

mod compiled;
mod dir;
pub mod disk;
mod entry;
pub mod handle;
mod key;
#[cfg(test)]
pub(crate) mod scratch;

pub use compiled::{CacheCounts, CompileCache, Handler, HandlerDigest, Need};
