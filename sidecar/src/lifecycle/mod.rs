//! The life of a serving process, seen from its main thread: signals, the parent, the service manager, the end.
//!
//! ```text
//!   serve ... ready --> watch: SIGTERM/SIGINT -> drain -> exit;  again -> exit at once
//!                              SIGHUP -> reload;  parent gone -> exit;  service manager's watchdog <- progress
//! ```
//! Nothing here runs a guest or reads a request. The main thread sleeps in one `poll` and wakes for these events alone.

/// The other process of a child.
pub mod parent;
/// What is looked after.
pub mod served;
/// Signals as things to poll.
pub mod signals;
/// What systemd hands in and wants to hear.
pub mod systemd;
mod watch;

pub use served::Served;
pub use watch::{Exit, Lifecycle, interrupted, parent_of};
