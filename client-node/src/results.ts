/**
 * Answers to typed results. In plain mode payloads are decoded; in Buffer mode they are handed on as they are.
 * Everything throws MalformedError (or SERIALIZATION_ERROR for a payload) when the sidecar sent something else.
 */
import { readExecutionMetrics, readHandlerNote, STATUS } from './maps.js';
import { readError } from './answers.js';
import { decodeBin } from './payload.js';
import { MalformedError, type Bin } from './reader.js';
import { STATISTICS, type RuntimeStats } from './statistics.js';
import { bin, float, list, map, oneOf, string, uint } from './typed.js';
import type { BufferResult, ExecutionResult, HandlerNote, LogRecord, Suspension } from './types.js';

type Fields = Record<string, unknown>;

export function readPlainResult(fields: Fields): ExecutionResult {
  // One literal: results are made tens of thousands of times a second, and objects that are spread together are slow.
  const result: ExecutionResult = {
    status: oneOf(fields, 'status', STATUS),
    seq: uint(fields, 'seq'),
    stateMutations: plainList(fields, 'stateMutations'),
    events: plainList(fields, 'events'),
    viewCommands: plainList(fields, 'viewCommands'),
    logs: plainList(fields, 'logs'),
    suspensions: readSuspensions(fields, (args) => items(args, 'args')),
    metrics: readExecutionMetrics(map(fields['metrics'], 'metrics')),
  };
  if (fields['value'] !== undefined) result.returnValue = decodeBin(bin(fields, 'value'));
  readRest(fields, result);
  return result;
}

export function readBufferResult(fields: Fields): BufferResult {
  const result: BufferResult = {
    status: oneOf(fields, 'status', STATUS),
    seq: uint(fields, 'seq'),
    stateMutations: bufferList(fields, 'stateMutations'),
    events: bufferList(fields, 'events'),
    viewCommands: bufferList(fields, 'viewCommands'),
    logs: bufferList(fields, 'logs'),
    suspensions: readSuspensions(fields, (args) => args.toBuffer()),
    metrics: readExecutionMetrics(map(fields['metrics'], 'metrics')),
  };
  if (fields['value'] !== undefined) result.returnValue = bin(fields, 'value').toBuffer();
  readRest(fields, result);
  return result;
}

/** What most results don't have, and what must be there for the status. */
function readRest<Args>(fields: Fields, result: { suspensions: Suspension<Args>[] } & RestOf<Args>): void {
  const [suspension] = result.suspensions;
  if (suspension !== undefined) result.suspension = suspension;
  if (fields['stateVersion'] !== undefined) result.stateVersion = uint(fields, 'stateVersion');
  if (fields['warnings'] !== undefined) result.warnings = list(fields, 'warnings', readHandlerNote);
  if (fields['error'] !== undefined) result.error = readError(fields['error']);
  else if (result.status === 'error') throw new MalformedError('status error without an error');
}

interface RestOf<Args> {
  status: ExecutionResult['status'];
  suspension?: Suspension<Args>;
  stateVersion?: number;
  warnings?: HandlerNote[];
  error?: ExecutionResult['error'];
}

/** Those that the segment made: which are outstanding is not in the answer, see suspended.ts. */
function readSuspensions<Args>(fields: Fields, readArgs: (args: Bin) => Args): Suspension<Args>[] {
  if (fields['suspensions'] === undefined) return [];
  return list(fields, 'suspensions', (call) => ({
    suspensionId: string(call, 'id'),
    extensionName: string(call, 'extension'),
    method: string(call, 'method'),
    args: readArgs(bin(call, 'args')),
  }));
}

/** What a handler has logged since the part before. */
export function readLogs(fields: Fields): LogRecord[] {
  return plainList(fields, 'logs');
}

/** The items are the sidecar's own, made by it in the shape of SPEC 3: only the list itself is checked. */
function plainList<Item>(fields: Fields, key: string): Item[] {
  return fields[key] === undefined ? [] : (items(bin(fields, key), key) as Item[]);
}

function items(payload: Bin, key: string): unknown[] {
  const value = decodeBin(payload);
  if (!Array.isArray(value)) throw new MalformedError(`\`${key}\` is not an array`);
  return value;
}

function bufferList(fields: Fields, key: string): Buffer {
  return fields[key] === undefined ? Buffer.of(0x90) : bin(fields, key).toBuffer();
}

export function readHandle(fields: Fields): Buffer {
  return bin(fields, 'handler').toBuffer();
}

export function readStats(fields: Fields): RuntimeStats {
  const read = (key: string, kind: string): number => {
    if (kind.endsWith('?') && fields[key] === undefined) return 0;
    return kind.startsWith('float') ? float(fields, key) : uint(fields, key);
  };
  const entries = Object.entries(STATISTICS).map(([key, kind]) => [key, read(key, kind)]);
  return Object.fromEntries(entries) as RuntimeStats;
}

/** Before a sidecar runs, nothing has been executed and nothing is held. */
export function noStats(): RuntimeStats {
  return Object.fromEntries(Object.keys(STATISTICS).map((key) => [key, 0])) as unknown as RuntimeStats;
}
