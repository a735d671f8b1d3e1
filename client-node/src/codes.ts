// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** The error codes of SPEC 4: whether the same request may succeed later, as far as the code alone can tell. */
export const RETRYABLE_BY_CODE = {
  /** Frame, message or version. */
  PROTOCOL_ERROR: false,
  /** A value of the request is wrong. */
  INVALID_ARGUMENT: false,
  /** Handle forged, or not of this sidecar. */
  INVALID_HANDLER: false,
  /** Suspension unknown, used, expired or foreign. */
  SUSPENSION_ERROR: false,
  /** By the client. */
  CANCELLED: false,
  /** The handler does not parse. */
  COMPILATION_ERROR: false,
  /** The handler threw or rejected. */
  EXECUTION_ERROR: false,
  /** No capability. */
  PERMISSION_DENIED: false,
  /** The client has no such extension. */
  EXTENSION_NOT_FOUND: false,
  /** The extension has no such method. */
  METHOD_NOT_FOUND: false,
  /** A value that MessagePack cannot carry. */
  SERIALIZATION_ERROR: false,
  /** Deadline. */
  TIMEOUT: false,
  /** Memory of the handler. */
  MEMORY_LIMIT: false,
  /** A counted limit; `context` names it. */
  RESOURCE_LIMIT: false,
  /** Queue full or waited too long. */
  OVERLOADED: true,
  /** The guest trapped. */
  WASM_ERROR: true,
  /** A fault of the sidecar's own. */
  INTERNAL_ERROR: true,
  /** Made by clients: the connection ended with the request unanswered. */
  SIDECAR_GONE: true,
  /** Made by clients: there is no program to start. */
  SIDECAR_NOT_FOUND: false,
} as const;

export type ErrorCode = keyof typeof RETRYABLE_BY_CODE;
