//! Copies of every number that peers of other builds depend on.
//!
//! A failure here means that the wire has changed. Do not just update the expected value: a number that was ever
//! released is never used for anything else, and a layout that an older peer would misread needs a new version.

use crate::error::ErrorCode as E;
use crate::limits as l;
use crate::message::Kind as K;
use crate::version::{ProtocolVersion, VersionRange};

const _: () = {
    assert!(ProtocolVersion::V2.0 == 2);
    assert!(VersionRange::SUPPORTED.min.0 == 2 && VersionRange::SUPPORTED.max.0 == 2);

    assert!(K::Hello.number() == 0x01 && K::HelloAnswer.number() == 0x81);
    assert!(K::Execute.number() == 0x02 && K::Result.number() == 0x82);
    assert!(K::Precompile.number() == 0x03 && K::Compiled.number() == 0x83);
    assert!(K::Resume.number() == 0x04 && K::Cancel.number() == 0x05 && K::Done.number() == 0x84);
    assert!(K::Check.number() == 0x06 && K::Checked.number() == 0x86);
    assert!(K::Stats.number() == 0x07 && K::StatsAnswer.number() == 0x87);
    assert!(K::Metrics.number() == 0x08 && K::MetricsAnswer.number() == 0x88);
    assert!(K::Ping.number() == 0x09 && K::Pong.number() == 0x89);
    assert!(K::Shutdown.number() == 0x0a && K::Error.number() == 0xff);
    assert!(K::CreateState.number() == 0x0b && K::StateCreated.number() == 0x8b);
    assert!(K::PatchState.number() == 0x0c && K::StatePatched.number() == 0x8c);
    assert!(K::SnapshotState.number() == 0x0d && K::StateSnapshot.number() == 0x8d);
    assert!(K::OpenArena.number() == 0x0f && K::Arena.number() == 0x8f);
    assert!(K::Executions.number() == 0x10 && K::ExecutionsAnswer.number() == 0x90 && K::Kill.number() == 0x11);
    assert!(K::DisposeState.number() == 0x0e && K::StateDisposed.number() == 0x8e);

    assert!(E::ProtocolError.number() == 100);
    assert!(E::InvalidArgument.number() == 200 && E::InvalidHandler.number() == 201);
    assert!(E::SuspensionError.number() == 202 && E::Cancelled.number() == 203);
    assert!(E::CompilationError.number() == 300 && E::ExecutionError.number() == 301);
    assert!(E::PermissionDenied.number() == 302 && E::ExtensionNotFound.number() == 303);
    assert!(E::MethodNotFound.number() == 304 && E::SerializationError.number() == 305);
    assert!(E::Timeout.number() == 400 && E::MemoryLimit.number() == 401);
    assert!(E::ResourceLimit.number() == 402 && E::Overloaded.number() == 403);
    assert!(E::WasmError.number() == 500 && E::InternalError.number() == 501 && E::SidecarGone.number() == 502);
};

// What both ends enforce, and what a configuration of one end may rely on.
const _: () = {
    assert!(l::FRAME_HEADER_BYTES == 4 && l::SUSPENSION_ID_BYTES == 16);
    assert!(l::MAX_CONTROL_DEPTH == 16 && l::MAX_CONTROL_VALUES == 65_536);
    assert!(l::MAX_PAYLOAD_DEPTH == 64);
    assert!(l::MAX_CLIENT_NAME_BYTES == 128 && l::MAX_LABEL_BYTES == 256);
    assert!(l::DEFAULT_MAX_FRAME_BYTES == 64 << 20 && l::DEFAULT_MAX_RESULT_BYTES < l::DEFAULT_MAX_FRAME_BYTES);
    assert!(l::MAX_FRAME_BYTES_CEILING <= u32::MAX as u64);
    assert!(l::DEFAULT_MAX_FRAME_BYTES <= l::MAX_FRAME_BYTES_CEILING);
    let texts = l::MAX_ERROR_MESSAGE_BYTES * 3 + l::MAX_ERROR_STACK_BYTES * 2;
    assert!((texts + l::MAX_INNER_ERROR_BYTES) as u64 + 8192 <= l::MIN_MAX_FRAME_BYTES);
    assert!(l::MAX_CAUSE_DEPTH * 2 + 4 <= l::MAX_CONTROL_DEPTH);
};
