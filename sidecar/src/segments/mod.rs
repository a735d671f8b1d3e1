//! Shared memory for large payloads: one segment per connection at most, made here, written and read by both sides.
//!
//! ```text
//!   openArena {bytes} --> Arena with a name --> the client opens the file --> openArena {generation, opened} --> no name
//!   request with regions --> read: one private copy each --> as if it had come in the frame
//!   answer --> written into the region that the request has lent, as far as it fits
//! ```
//! All places in a segment are chosen by the client, for its own payloads and for the answers, so there is one allocator and
//! nothing to agree on: a region is the sidecar's from the request to its answer.

mod arena;
mod arenas;
mod maker;
mod name;

pub use arena::{Arena, directory};
pub use arenas::{Arenas, Copied, Lent, Opened};
pub use maker::{Named, OwnSegments, SegmentMaker};
pub use name::sweep;
