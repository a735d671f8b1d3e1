// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

//! The error codes of SPEC 4, with their names, numbers and what they alone tell.

/// What went wrong, as one of the codes of SPEC 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u16)]
pub enum ErrorCode {
    /// Frame, message or version.
    ProtocolError = 100,
    /// A value of the request is wrong.
    InvalidArgument = 200,
    /// Handle forged, or not of this sidecar.
    InvalidHandler = 201,
    /// Suspension unknown, used, expired or foreign.
    SuspensionError = 202,
    /// By the client.
    Cancelled = 203,
    /// The handler does not parse.
    CompilationError = 300,
    /// The handler threw or rejected.
    ExecutionError = 301,
    /// No capability.
    PermissionDenied = 302,
    /// The client has no such extension.
    ExtensionNotFound = 303,
    /// The extension has no such method.
    MethodNotFound = 304,
    /// A value that MessagePack cannot carry.
    SerializationError = 305,
    /// Deadline.
    Timeout = 400,
    /// Memory of the handler.
    MemoryLimit = 401,
    /// A counted limit; `context` names it.
    ResourceLimit = 402,
    /// Queue full or waited too long.
    Overloaded = 403,
    /// The guest trapped.
    WasmError = 500,
    /// A fault of the sidecar's own.
    InternalError = 501,
    /// Made by clients: the connection ended with the request unanswered.
    SidecarGone = 502,
    /// Made by clients: there is no program to start.
    SidecarNotFound = 503,
    /// The process that had the request has ended; the connection goes on.
    WorkerLost = 504,
}

impl ErrorCode {
    /// Every code, by number.
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

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::InvalidHandler => "INVALID_HANDLER",
            Self::SuspensionError => "SUSPENSION_ERROR",
            Self::Cancelled => "CANCELLED",
            Self::CompilationError => "COMPILATION_ERROR",
            Self::ExecutionError => "EXECUTION_ERROR",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ExtensionNotFound => "EXTENSION_NOT_FOUND",
            Self::MethodNotFound => "METHOD_NOT_FOUND",
            Self::SerializationError => "SERIALIZATION_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::MemoryLimit => "MEMORY_LIMIT",
            Self::ResourceLimit => "RESOURCE_LIMIT",
            Self::Overloaded => "OVERLOADED",
            Self::WasmError => "WASM_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::SidecarGone => "SIDECAR_GONE",
            Self::SidecarNotFound => "SIDECAR_NOT_FOUND",
            Self::WorkerLost => "WORKER_LOST",
        }
    }

    /// The code of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "PROTOCOL_ERROR" => Some(Self::ProtocolError),
            "INVALID_ARGUMENT" => Some(Self::InvalidArgument),
            "INVALID_HANDLER" => Some(Self::InvalidHandler),
            "SUSPENSION_ERROR" => Some(Self::SuspensionError),
            "CANCELLED" => Some(Self::Cancelled),
            "COMPILATION_ERROR" => Some(Self::CompilationError),
            "EXECUTION_ERROR" => Some(Self::ExecutionError),
            "PERMISSION_DENIED" => Some(Self::PermissionDenied),
            "EXTENSION_NOT_FOUND" => Some(Self::ExtensionNotFound),
            "METHOD_NOT_FOUND" => Some(Self::MethodNotFound),
            "SERIALIZATION_ERROR" => Some(Self::SerializationError),
            "TIMEOUT" => Some(Self::Timeout),
            "MEMORY_LIMIT" => Some(Self::MemoryLimit),
            "RESOURCE_LIMIT" => Some(Self::ResourceLimit),
            "OVERLOADED" => Some(Self::Overloaded),
            "WASM_ERROR" => Some(Self::WasmError),
            "INTERNAL_ERROR" => Some(Self::InternalError),
            "SIDECAR_GONE" => Some(Self::SidecarGone),
            "SIDECAR_NOT_FOUND" => Some(Self::SidecarNotFound),
            "WORKER_LOST" => Some(Self::WorkerLost),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, as far as the code alone can tell (see `WireError::retryable`).
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Overloaded | Self::WasmError | Self::InternalError | Self::SidecarGone | Self::WorkerLost)
    }

    /// Whether clients alone make it: it is never on the wire.
    pub const fn is_of_clients(self) -> bool {
        matches!(self, Self::SidecarGone | Self::SidecarNotFound)
    }
}
