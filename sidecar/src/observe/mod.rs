//! What the sidecar counts about itself: statistics, metrics, log.
//!
//! One [`Observer`] per sidecar, shared by reference. Any thread may record; recording is relaxed atomics without a lock
//! or an allocation. Figures that other modules keep are handed in as a [`Snapshot`] when somebody reads.
//!
//! What this does not do: keep anything of one execution, a handler's text, or state; serve the text over a socket.

mod exposition;
mod flow;
mod histogram;
pub mod logging;
pub mod metrics;
mod observer;
pub mod process;
mod registry;
mod snapshot;

pub use exposition::Exposition;
pub use observer::{Observer, SegmentRecord, Status, SuspensionEvent};
pub use snapshot::{Ceilings, Snapshot};
