//! What each command of the command line does, `serve`, `engine` and `--version` excepted. All write to an output that
//! `main` hands in.
//!
//! `run` and `check` ask a sidecar in this process, the others one behind a socket; all in the messages of the protocol.

mod check;
mod client;
mod diagnostic;
mod dispatch;
pub mod fixtures;
pub mod input;
pub mod json;
mod local;
pub mod notation;
mod place;
mod remote;
mod replay;
mod report;
mod run;
mod top;
mod types;
mod watch;

pub use client::ClientError;
pub use dispatch::{check, check_config, for_one_handler, metrics, ping, run, stats, top, types};
pub use input::InputError;
