//! The engine: a WasmEdge module that is QuickJS, loaded once, and instances of it that start from one pristine image.
//!
//! ```text
//!   Engine (module, image, watchdog) --instantiate--> Instance --run--> Segment --resume--> Segment ... --reset--> pristine
//! ```
//! There are two guests of the same sources: in the one, extension calls return promises; in the other, about half as fast, they
//! suspend the whole stack. Bytecode of the first runs in the second as well. An engine is one of them.
//!
//! The engine does not know of clients, requests, pools or caches. It may be used from any thread with a stack of
//! `thread_stack_bytes`; one instance is used by one thread at a time.

pub mod abi;
#[cfg(test)]
mod allocation_tests;
#[cfg(test)]
mod boundary_tests;
pub mod context;
pub mod control;
#[cfg(all(test, feature = "model"))]
mod control_model;
mod dataless;
mod denial;
pub mod describe;
mod ffi;
pub mod guest_error;
mod guest_inner;
#[cfg(test)]
mod handler_tests;
pub mod host;
pub mod image;
pub mod instance;
#[cfg(test)]
mod instance_tests;
#[cfg(test)]
mod isolation_tests;
mod keeper;
#[cfg(test)]
mod kept_tests;
pub mod lease;
pub mod live_logs;
mod load;
#[cfg(test)]
mod native_stack_tests;
pub mod park;
#[cfg(test)]
mod park_tests;
#[cfg(test)]
mod place_tests;
mod processor;
pub mod refusals;
pub mod registry;
#[cfg(test)]
mod shim_tests;
#[cfg(test)]
mod silent_tests;
mod start;
mod state;
mod state_index;
mod stored;
#[cfg(test)]
mod told_tests;
pub mod watchdog;

pub use instance::{Compiled, Instance, Segment, SegmentEnd};
pub use load::digest_of;
pub use park::{ParkError, Parked};
pub use start::{Engine, EngineError, EngineOptions, Guests, thread_stack_bytes};
pub use state::StateView;
