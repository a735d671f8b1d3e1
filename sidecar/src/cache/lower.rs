//! What lies below the cache in memory: a directory, or whoever has one.

use std::sync::Arc;

use super::{Handler, HandlerDigest};

/// What is known of a lower tier without looking there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerCounts {
    pub used_bytes: u64,
    /// Entries that were bad, foreign or old.
    pub rejected: u64,
}

/// Compiled handlers that outlive the process. It only saves time: nothing here fails an execution.
pub trait LowerTier: Send + Sync {
    /// A handler that was verified, or nothing.
    fn read(&self, digest: &HandlerDigest) -> Option<Handler>;
    /// Has a handler kept, soon. Does not wait.
    fn write(&self, handler: &Arc<Handler>);
    /// Has what is queued kept, as far as that goes in a short time. Nothing is taken in any more.
    fn flush(&self);
    /// Costs no look at the disk.
    fn counts(&self) -> LowerCounts;
}
