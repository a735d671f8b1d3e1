//! The server: connections in, answers out.
//!
//! ```text
//!   workers (maxInstances + 1), each:  poll -- frames --> hub --> next job -> run -> answer -> reset -> ...
//!                                        ^                                                      |
//!                                        +------------------------------------------------------+
//! ```
//! There is one poller, and it is polled by whichever worker has nothing better to do: a small request is read, run and
//! answered by one thread, without a hop. When a run takes longer than a tick, the watchdog wakes another worker, which
//! finds the poller lying there and goes on polling, so that cancellations and pings are always heard. One thread more, the
//! housekeeper, does what no request waits for. A worker that does not come back is replaced; see `rescue`.

mod busy;
pub mod connection;
mod crew;
pub mod door;
mod drain;
mod errand;
mod events;
mod health;
mod hello;
mod holdings;
mod housekeeper;
pub mod hub;
mod incoming;
pub mod listen;
mod many;
mod mark;
mod memory;
mod meter;
mod operator;
mod oversight;
mod peer;
pub mod poller;
mod refusal;
mod rescue;
mod resident;
mod resolution;
pub mod roll;
pub mod session;
mod shared;
mod state;
mod suspend;
mod tick;
mod work;

pub use health::Pulse;
pub use mark::Mark;
pub use state::{Mode, Server, Surroundings};
