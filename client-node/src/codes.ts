// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

/** What went wrong, as one of the codes of SPEC 4. */
export type ErrorCode =
  /** Frame, message or version. */
  | 'PROTOCOL_ERROR'
  /** A value of the request is wrong. */
  | 'INVALID_ARGUMENT'
  /** Handle forged, or not of this sidecar. */
  | 'INVALID_HANDLER'
  /** Suspension unknown, used, expired or foreign. */
  | 'SUSPENSION_ERROR'
  /** By the client. */
  | 'CANCELLED'
  /** The handler does not parse. */
  | 'COMPILATION_ERROR'
  /** The handler threw or rejected. */
  | 'EXECUTION_ERROR'
  /** No capability. */
  | 'PERMISSION_DENIED'
  /** The client has no such extension. */
  | 'EXTENSION_NOT_FOUND'
  /** The extension has no such method. */
  | 'METHOD_NOT_FOUND'
  /** A value that MessagePack cannot carry. */
  | 'SERIALIZATION_ERROR'
  /** Deadline. */
  | 'TIMEOUT'
  /** Memory of the handler. */
  | 'MEMORY_LIMIT'
  /** A counted limit; `context` names it. */
  | 'RESOURCE_LIMIT'
  /** Queue full or waited too long. */
  | 'OVERLOADED'
  /** The guest trapped. */
  | 'WASM_ERROR'
  /** A fault of the sidecar's own. */
  | 'INTERNAL_ERROR'
  /** Made by clients: the connection ended with the request unanswered. */
  | 'SIDECAR_GONE'
  /** Made by clients: there is no program to start. */
  | 'SIDECAR_NOT_FOUND'
  /** The process that had the request has ended; the connection goes on. */
  | 'WORKER_LOST';

/** Whether the same request may succeed later, as far as the code alone can tell. */
export const RETRYABLE_BY_CODE: Readonly<Record<ErrorCode, boolean>> = {
  PROTOCOL_ERROR: false,
  INVALID_ARGUMENT: false,
  INVALID_HANDLER: false,
  SUSPENSION_ERROR: false,
  CANCELLED: false,
  COMPILATION_ERROR: false,
  EXECUTION_ERROR: false,
  PERMISSION_DENIED: false,
  EXTENSION_NOT_FOUND: false,
  METHOD_NOT_FOUND: false,
  SERIALIZATION_ERROR: false,
  TIMEOUT: false,
  MEMORY_LIMIT: false,
  RESOURCE_LIMIT: false,
  OVERLOADED: true,
  WASM_ERROR: true,
  INTERNAL_ERROR: true,
  SIDECAR_GONE: true,
  SIDECAR_NOT_FOUND: false,
  WORKER_LOST: true,
};
