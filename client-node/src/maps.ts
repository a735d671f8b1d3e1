// Generated from protocol/schema.toml, do not edit: run `cargo xtask generate`.

import { boolean, list, map, oneOf, string, strings, uint, uints } from './typed.js';

type Fields = Record<string, unknown>;

/** How a handler's extension calls suspend. */
export type SuspendMode = 'await' | 'stack';
export const SUSPEND_MODE = ['await', 'stack'] as const;

/** How a segment ended. */
export type Status = 'success' | 'suspended' | 'error';
export const STATUS = ['success', 'suspended', 'error'] as const;

/** What an execution does. */
export type ExecutionState = 'queued' | 'running' | 'suspended';
export const EXECUTION_STATE = ['queued', 'running', 'suspended'] as const;

/** Something in a handler's text that its author should know, and its place. */
export interface HandlerNote {
  /** For people. */
  message: string;
  /** From 1. */
  line: number;
  /** From 1, in UTF-16 units as JavaScript counts them. */
  column: number;
}

export function readHandlerNote(fields: Fields): HandlerNote {
  return {
    message: string(fields, 'message'),
    line: uint(fields, 'line'),
    column: uint(fields, 'column'),
  };
}

/** What check found. */
export interface HandlerCheck {
  /** Who grants all of these has granted enough. */
  capabilities: string[];
  /** How the handler's extension calls suspend. */
  suspendMode: SuspendMode;
  /** Why it is that mode, for people. Absent: the sidecar does not say. */
  suspendReason?: string;
  /**
   * Those of `capabilities` without which the handler fails whenever it runs, as far as its text tells, which is what
   * `strictCapabilities` asks for.
   */
  certain: string[];
  /** What the handler's author should know of its text, such as a promise that is used as a value. */
  warnings: HandlerNote[];
  /**
   * Why the text could not be analyzed, if it could not: then it may need anything, and `capabilities` is all there is.
   */
  unparsed?: HandlerNote;
}

export function readHandlerCheck(fields: Fields): HandlerCheck {
  const value: HandlerCheck = {
    capabilities: strings(fields, 'capabilities'),
    suspendMode: oneOf(fields, 'suspendMode', SUSPEND_MODE),
    certain: fields['certain'] === undefined ? [] : strings(fields, 'certain'),
    warnings: fields['warnings'] === undefined ? [] : list(fields, 'warnings', readHandlerNote),
  };
  if (fields['suspendReason'] !== undefined) value.suspendReason = string(fields, 'suspendReason');
  if (fields['unparsed'] !== undefined) value.unparsed = readHandlerNote(map(fields['unparsed'], 'unparsed'));
  return value;
}

/** Figures of one execution, all of its segments so far. */
export interface ExecutionMetrics {
  /** Time from the request to the answer, in microseconds; suspended time is not counted. */
  durationUs: number;
  /** Processor time, in microseconds. */
  cpuUs: number;
  /** Time in the queue for an instance, in microseconds. */
  queueUs: number;
  /** Memory in use at the end of the segment. */
  memoryUsedBytes: number;
  /** Most memory that was in use. */
  memoryPeakBytes: number;
  /** Instructions, approximately. */
  instructionCount: number;
  /** Calls out of the sandbox by their names, such as `state_get`; for people, the names may change. */
  hostCalls: Record<string, number>;
  /** Whether the compiled form was there already, as in compiled. */
  cacheHit: boolean;
  /** Time that compiling it took, in microseconds. */
  compilationTimeUs?: number;
}

export function readExecutionMetrics(fields: Fields): ExecutionMetrics {
  const value: ExecutionMetrics = {
    durationUs: uint(fields, 'durationUs'),
    cpuUs: uint(fields, 'cpuUs'),
    queueUs: uint(fields, 'queueUs'),
    memoryUsedBytes: uint(fields, 'memoryUsedBytes'),
    memoryPeakBytes: uint(fields, 'memoryPeakBytes'),
    instructionCount: uint(fields, 'instructionCount'),
    hostCalls: uints(fields, 'hostCalls'),
    cacheHit: boolean(fields, 'cacheHit'),
  };
  if (fields['compilationTimeUs'] !== undefined) value.compilationTimeUs = uint(fields, 'compilationTimeUs');
  return value;
}

/** The executions that are there. */
export interface ExecutionList {
  /** At most 1,000: running ones first, then suspended, then queued. */
  executions: ExecutionInfo[];
  /** How many there are, of which only some may be listed. */
  total: number;
}

export function readExecutionList(fields: Fields): ExecutionList {
  return {
    executions: list(fields, 'executions', readExecutionInfo),
    total: uint(fields, 'total'),
  };
}

/** One execution. No source, state or value is told. */
export interface ExecutionInfo {
  /** Of this sidecar, for kill. */
  id: number;
  /** The connection that it came by. */
  session: number;
  /** As that client called itself in its hello. */
  client: string;
  /** That client's process when it connected. */
  pid: number;
  /** As the client named it. */
  panelId?: string;
  /** As the client named it. */
  handlerName?: string;
  /** What it does. */
  state: ExecutionState;
  /** Time since it arrived, in milliseconds. */
  ageMs: number;
  /** Processor time, that in the segment that runs included, in microseconds. */
  cpuUs: number;
  /** Of the instance while it runs, of the handler's values while it is suspended. */
  memoryBytes?: number;
  /** Extension calls that it waits for. */
  pendingCalls: number;
}

export function readExecutionInfo(fields: Fields): ExecutionInfo {
  const value: ExecutionInfo = {
    id: uint(fields, 'id'),
    session: uint(fields, 'session'),
    client: string(fields, 'client'),
    pid: uint(fields, 'pid'),
    state: oneOf(fields, 'state', EXECUTION_STATE),
    ageMs: uint(fields, 'ageMs'),
    cpuUs: uint(fields, 'cpuUs'),
    pendingCalls: uint(fields, 'pendingCalls'),
  };
  if (fields['panelId'] !== undefined) value.panelId = string(fields, 'panelId');
  if (fields['handlerName'] !== undefined) value.handlerName = string(fields, 'handlerName');
  if (fields['memoryBytes'] !== undefined) value.memoryBytes = uint(fields, 'memoryBytes');
  return value;
}
