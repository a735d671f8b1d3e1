// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The error codes as this crate's own type: the wire's may grow without the programs that use this crate.

use nexus_protocol::error as wire;

/// What went wrong. More of each is in the specification of the protocol (SPEC 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// Frame, message or version.
    ProtocolError,
    /// A value of the request is wrong.
    InvalidArgument,
    /// Handle forged, or not of this sidecar.
    InvalidHandler,
    /// Suspension unknown, used, expired or foreign.
    SuspensionError,
    /// By the client.
    Cancelled,
    /// The handler does not parse.
    CompilationError,
    /// The handler threw or rejected.
    ExecutionError,
    /// No capability.
    PermissionDenied,
    /// The client has no such extension.
    ExtensionNotFound,
    /// The extension has no such method.
    MethodNotFound,
    /// A value that MessagePack cannot carry.
    SerializationError,
    /// Deadline.
    Timeout,
    /// Memory of the handler.
    MemoryLimit,
    /// A counted limit; `context` names it.
    ResourceLimit,
    /// Queue full or waited too long.
    Overloaded,
    /// The guest trapped.
    WasmError,
    /// A fault of the sidecar's own.
    InternalError,
    /// Made by clients: the connection ended with the request unanswered.
    SidecarGone,
    /// Made by clients: there is no program to start.
    SidecarNotFound,
    /// The process that had the request has ended; the connection goes on.
    WorkerLost,
}

impl ErrorCode {
    /// Each of them.
    pub const ALL: &'static [Self] = &[
        Self::ProtocolError,
        Self::InvalidArgument,
        Self::InvalidHandler,
        Self::SuspensionError,
        Self::Cancelled,
        Self::CompilationError,
        Self::ExecutionError,
        Self::PermissionDenied,
        Self::ExtensionNotFound,
        Self::MethodNotFound,
        Self::SerializationError,
        Self::Timeout,
        Self::MemoryLimit,
        Self::ResourceLimit,
        Self::Overloaded,
        Self::WasmError,
        Self::InternalError,
        Self::SidecarGone,
        Self::SidecarNotFound,
        Self::WorkerLost,
    ];

    pub(crate) const fn wire(self) -> wire::ErrorCode {
        match self {
            Self::ProtocolError => wire::ErrorCode::ProtocolError,
            Self::InvalidArgument => wire::ErrorCode::InvalidArgument,
            Self::InvalidHandler => wire::ErrorCode::InvalidHandler,
            Self::SuspensionError => wire::ErrorCode::SuspensionError,
            Self::Cancelled => wire::ErrorCode::Cancelled,
            Self::CompilationError => wire::ErrorCode::CompilationError,
            Self::ExecutionError => wire::ErrorCode::ExecutionError,
            Self::PermissionDenied => wire::ErrorCode::PermissionDenied,
            Self::ExtensionNotFound => wire::ErrorCode::ExtensionNotFound,
            Self::MethodNotFound => wire::ErrorCode::MethodNotFound,
            Self::SerializationError => wire::ErrorCode::SerializationError,
            Self::Timeout => wire::ErrorCode::Timeout,
            Self::MemoryLimit => wire::ErrorCode::MemoryLimit,
            Self::ResourceLimit => wire::ErrorCode::ResourceLimit,
            Self::Overloaded => wire::ErrorCode::Overloaded,
            Self::WasmError => wire::ErrorCode::WasmError,
            Self::InternalError => wire::ErrorCode::InternalError,
            Self::SidecarGone => wire::ErrorCode::SidecarGone,
            Self::SidecarNotFound => wire::ErrorCode::SidecarNotFound,
            Self::WorkerLost => wire::ErrorCode::WorkerLost,
        }
    }
}
