//! The walls between processes: a *supervisor*, which has the sockets, the keys and the names, and sealed *workers*, in which
//! guests run.
//!
//! The cut is below `serve` and above `Server`: a request is read, run and answered inside of one process, by the same threads as
//! without a wall, and crosses nothing. A worker has its clients' connections from the supervisor, and what would need a path (a
//! cache entry, a segment's name) it asks the supervisor for, off the path of requests.

mod compilations;
mod compile;
mod compile_policy;
mod copies;
mod deaths;
mod fleet;
mod gather;
mod handover;
#[cfg(feature = "faults")]
pub mod hostile;
mod line;
mod lost;
mod names;
mod page;
mod policy;
mod portion;
mod remote;
pub mod seal;
mod supervise;
mod words;
pub mod worker;

pub use fleet::{Clients, Fleet};
pub use handover::Intake;
pub use supervise::Household;
