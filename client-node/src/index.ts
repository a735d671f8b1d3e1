/** Public API of @nexus/sidecar. What is not exported here may change in any release. */
export { NexusRuntime, type CallOptions, type OnResident } from './client.js';
export { configFromEnv, type ClientConfig, type RuntimeConfig, type SidecarConfig } from './config.js';
export { currentCall, type CurrentCall } from './current.js';
export { HandlerError, NexusError, type ErrorCode, type ErrorDetails, type SourceLocation, type SourceSnippet } from './errors.js';
export { formatError, type FormatOptions } from './format.js';
export type { ExecutionInfo, ExecutionList, ExecutionState, Status } from './maps.js';
export type { HelloInfo } from './answers.js';
export type { ManyContext, ManyEffects, ManyOptions, ManyResult } from './many.js';
export { applyMutations } from './mutations.js';
export { decodePayload, encoded, encodePayload, type Encoded } from './payload.js';
export { ResidentState, ResidentUse, type StatePatch, type StateSnapshot } from './resident.js';
export type { ExtensionMethod, Extensions, ExtensionsOf, RunOptions, RunResult, Segment } from './run.js';
export type { RuntimeStats } from './statistics.js';
export type {
  AsyncResult,
  BufferContext,
  BufferResult,
  EmittedEvent,
  ExecutionMetrics,
  ExecutionResult,
  HandlerCheck,
  HandlerContext,
  HandlerNote,
  LogRecord,
  PrecompileOptions,
  StateMutation,
  SuspendMode,
  Suspension,
  ViewCommand,
} from './types.js';
export type { DoorConfig } from './dialects/door.js';
export { createRuntime } from './dialects/kernel.js';
export type {
  KernelAsyncResult,
  KernelContext,
  KernelResult,
  KernelRuntime,
} from './dialects/kernel.js';
export { WasmRuntime } from './dialects/reactor.js';
export type { ReactorAsyncResult, ReactorContext, ReactorResult } from './dialects/reactor.js';
