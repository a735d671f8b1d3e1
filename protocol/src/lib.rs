//! What nexus-sidecar and its clients say to each other: frames, messages, limits, errors, capability tokens.
//!
//! ```text
//!  0        4                                     4 + length
//!  +--------+-------------------------------------+
//!  | length | body                                |   length: u32 LE, 1 ..= maxFrameBytes, checked before reserving
//!  | u32 LE | [ kind: u8, id: u32, fields: map ]  |   body: one MessagePack array of exactly three elements
//!  +--------+-------------------------------------+
//!                                |
//!                                +-- control values: decoded here, at most 16 levels, known types only
//!                                +-- payloads: `bin` that holds one MessagePack value of a handler; never decoded
//! ```
//!
//! `SPEC.md` beside this crate is normative. Both directions encode and decode, because the sidecar and the Rust
//! client share this crate. Bodies borrow from the frame that they were read from.
//!
//! Invariants: no I/O, no clock, no unsafe code; nothing panics on a peer's bytes; memory follows the bytes that
//! arrived, never the lengths that were claimed.
//!
//! What it does not do: sockets (sidecar `server`, client `connection`), the order of messages within a connection
//! (the session machines), the meaning of payloads (only the guest decodes them).

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

/// Capability tokens and the set of grants of one execution.
pub mod capability;
/// Bodies to messages and back.
pub mod codec;
/// Lists of effects (mutations, events, view commands, logs): build them, walk them.
pub mod effects;
mod encode;
/// Error codes and the error map of SPEC 4.
pub mod error;
/// Bytes to bodies.
pub mod frame;
/// Identifiers of requests, suspensions and resident states.
pub mod ids;
/// The errors inside of an error.
pub mod inner;
/// Every bound, with its unit and reason.
pub mod limits;
/// The messages and their fields.
pub mod message;
/// A scanner for payloads: measures and checks MessagePack without decoding it.
pub mod payload;
/// Bytes of which the large parts are shared instead of copied.
pub mod pieces;
/// Protocol versions and how two peers agree on one.
pub mod version;

mod code;
mod control;
mod strict;
mod tripwires;

pub use capability::{Capability, CapabilityError, CapabilitySet};
pub use codec::{DecodeError, DecodeReason, Envelope, decode_client, decode_sidecar};
pub use effects::EffectList;
pub use encode::{EncodeError, LargeField, encode_frame, encode_frame_with, encode_map_with};
pub use error::{ContextValue, ErrorCode, Fault, Location, Snippet, WireError};
pub use frame::{FrameDecoder, FrameError, OwnedFrame};
pub use ids::{RequestId, StateId, SuspensionId, SuspensionIdError};
pub use inner::InnerError;
pub use message::{ClientMessage, Kind, SidecarMessage};
pub use payload::PayloadError;
pub use pieces::{Part, Pieces, Shared};
pub use version::{MAGIC, ProtocolVersion, VersionMismatch, VersionRange};
