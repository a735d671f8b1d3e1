//! The compile cache: handlers by the digest of everything that decides their bytecode.
//!
//! Two tiers: memory, of which each client has a share, and below it a directory that outlives the process and can be shared,
//! see [`disk`]. Each is bounded by bytes and forgets what was used longest ago. One search or compilation per key runs at a
//! time; others that need the same key wait for it, no longer than they have time. Failures are not kept.

#![forbid(unsafe_code)]

mod compiled;
mod dir;
pub mod disk;
mod entry;
mod flight;
pub mod handle;
mod key;
mod lower;
mod memory;
#[cfg(test)]
pub(crate) mod scratch;
pub mod shelf;
mod way;

pub use compiled::{Asker, CacheCounts, CompileCache, Got, Handler, HandlerDigest, Need, Note, Origin, Warning};
pub use flight::{Concerns, Failed};
pub use lower::{LowerCounts, LowerTier};
pub use memory::Client;
