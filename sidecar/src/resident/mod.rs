//! States that stay with the sidecar, so that an execution costs what the keys cost that it touches.
//!
//! ```text
//!   connection --createState--> States --find--> ResidentState --snapshot--> StateView of an execution
//!                                                     ^                          |
//!                                                     +---- change set of each segment
//! ```
//! A state belongs to its connection: nobody else can name it, and it goes when the connection goes. Executions that still
//! read it keep the versions that they read alive, and pay for them: see [`crate::budget`].

mod state;
mod states;
mod versions;

pub use state::{Changes, ResidentState, Snapshot, check_key_count};
pub use states::{StateLimits, States};
