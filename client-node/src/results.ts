/**
 * Answers to typed results. In plain mode payloads are decoded; in Buffer mode they are handed on as they are.
 * Everything throws MalformedError (or SERIALIZATION_ERROR for a payload) when the sidecar sent something else.
 */
import { bin, boolean, float, map, readError, string, strings, uint, uints } from './messages.js';
import { decodeBin } from './payload.js';
import { MalformedError, type Bin } from './reader.js';
import { STATISTICS, type RuntimeStats } from './statistics.js';
import type {
  BufferResult,
  ExecutionMetrics,
  ExecutionResult,
  HandlerCheck,
  HandlerNote,
  Suspension,
} from './types.js';

type Fields = Record<string, unknown>;

export function readPlainResult(fields: Fields): ExecutionResult {
  // One literal: results are made tens of thousands of times a second, and objects that are spread together are slow.
  const result: ExecutionResult = {
    status: readStatus(fields),
    seq: uint(fields, 'seq'),
    stateMutations: plainList(fields, 'stateMutations'),
    events: plainList(fields, 'events'),
    viewCommands: plainList(fields, 'viewCommands'),
    logs: plainList(fields, 'logs'),
    suspensions: readSuspensions(fields, (args) => list(args, 'args')),
    metrics: readMetrics(map(fields['metrics'], 'metrics')),
  };
  if (fields['value'] !== undefined) result.returnValue = decodeBin(bin(fields, 'value'));
  readRest(fields, result);
  return result;
}

export function readBufferResult(fields: Fields): BufferResult {
  const result: BufferResult = {
    status: readStatus(fields),
    seq: uint(fields, 'seq'),
    stateMutations: bufferList(fields, 'stateMutations'),
    events: bufferList(fields, 'events'),
    viewCommands: bufferList(fields, 'viewCommands'),
    logs: bufferList(fields, 'logs'),
    suspensions: readSuspensions(fields, (args) => args.toBuffer()),
    metrics: readMetrics(map(fields['metrics'], 'metrics')),
  };
  if (fields['value'] !== undefined) result.returnValue = bin(fields, 'value').toBuffer();
  readRest(fields, result);
  return result;
}

function readStatus(fields: Fields): ExecutionResult['status'] {
  const { status } = fields;
  if (status !== 'success' && status !== 'suspended' && status !== 'error') {
    throw new MalformedError('`status` is none of those known');
  }
  return status;
}

/** What most results don't have, and what must be there for the status. */
function readRest<Args>(fields: Fields, result: { suspensions: Suspension<Args>[] } & RestOf<Args>): void {
  const [suspension] = result.suspensions;
  if (suspension !== undefined) result.suspension = suspension;
  if (fields['stateVersion'] !== undefined) result.stateVersion = uint(fields, 'stateVersion');
  if (fields['warnings'] !== undefined) result.warnings = readNotes(fields);
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
  const value = fields['suspensions'];
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new MalformedError('`suspensions` is not an array');
  return value.map((item: unknown) => {
    const fields = map(item, 'suspensions');
    return {
      suspensionId: string(fields, 'id'),
      extensionName: string(fields, 'extension'),
      method: string(fields, 'method'),
      args: readArgs(bin(fields, 'args')),
    };
  });
}

function readMetrics(fields: Fields): ExecutionMetrics {
  const metrics: ExecutionMetrics = {
    durationUs: uint(fields, 'durationUs'),
    cpuUs: uint(fields, 'cpuUs'),
    queueUs: uint(fields, 'queueUs'),
    memoryUsedBytes: uint(fields, 'memoryUsedBytes'),
    memoryPeakBytes: uint(fields, 'memoryPeakBytes'),
    instructionCount: uint(fields, 'instructionCount'),
    hostCalls: uints(fields, 'hostCalls'),
    cacheHit: boolean(fields, 'cacheHit'),
  };
  if (fields['compilationTimeUs'] !== undefined) metrics.compilationTimeUs = uint(fields, 'compilationTimeUs');
  return metrics;
}

/** The items are the sidecar's own, made by it in the shape of SPEC 3: only the list itself is checked. */
function plainList<Item>(fields: Fields, key: string): Item[] {
  return fields[key] === undefined ? [] : (list(bin(fields, key), key) as Item[]);
}

function list(payload: Bin, key: string): unknown[] {
  const value = decodeBin(payload);
  if (!Array.isArray(value)) throw new MalformedError(`\`${key}\` is not an array`);
  return value;
}

function bufferList(fields: Fields, key: string): Buffer {
  return fields[key] === undefined ? Buffer.of(0x90) : bin(fields, key).toBuffer();
}

export function readCheck(fields: Fields): HandlerCheck {
  const suspendMode = string(fields, 'suspendMode');
  if (suspendMode !== 'await' && suspendMode !== 'stack') throw new MalformedError('`suspendMode` is none of those known');
  const check: HandlerCheck = {
    capabilities: strings(fields, 'capabilities'),
    certain: fields['certain'] === undefined ? [] : strings(fields, 'certain'),
    suspendMode,
    warnings: fields['warnings'] === undefined ? [] : readNotes(fields),
  };
  if (fields['suspendReason'] !== undefined) check.suspendReason = string(fields, 'suspendReason');
  if (fields['unparsed'] !== undefined) check.unparsed = readNote(fields['unparsed'], 'unparsed');
  return check;
}

function readNotes(fields: Fields): HandlerNote[] {
  const { warnings } = fields;
  if (!Array.isArray(warnings)) throw new MalformedError('`warnings` is not an array');
  return warnings.map((item: unknown) => readNote(item, 'warnings'));
}

function readNote(value: unknown, key: string): HandlerNote {
  const fields = map(value, key);
  return { message: string(fields, 'message'), line: uint(fields, 'line'), column: uint(fields, 'column') };
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
