/**
 * Answers to typed results. In plain mode payloads are decoded; in Buffer mode they are handed on as they are.
 * Everything throws MalformedError (or SERIALIZATION_ERROR for a payload) when the sidecar sent something else.
 */
import { boolean, bytes, float, map, readError, string, strings, uint, uints } from './messages.js';
import { decodePayload } from './payload.js';
import { MalformedError } from './reader.js';
import type {
  BufferResult,
  ExecutionMetrics,
  ExecutionResult,
  HandlerCheck,
  RuntimeStats,
  Suspension,
} from './types.js';

type Fields = Record<string, unknown>;

const STATUSES = ['success', 'suspended', 'error'] as const;

export function readPlainResult(fields: Fields): ExecutionResult {
  const result: ExecutionResult = {
    ...readCommon(fields, (args) => list(args, 'args')),
    stateMutations: plainList(fields, 'stateMutations'),
    events: plainList(fields, 'events'),
    viewCommands: plainList(fields, 'viewCommands'),
    logs: plainList(fields, 'logs'),
  };
  if (fields['value'] !== undefined) result.returnValue = decodePayload(bytes(fields, 'value'));
  return result;
}

export function readBufferResult(fields: Fields): BufferResult {
  const result: BufferResult = {
    ...readCommon(fields, keep),
    stateMutations: bufferList(fields, 'stateMutations'),
    events: bufferList(fields, 'events'),
    viewCommands: bufferList(fields, 'viewCommands'),
    logs: bufferList(fields, 'logs'),
  };
  if (fields['value'] !== undefined) result.returnValue = keep(bytes(fields, 'value'));
  return result;
}

function readCommon<Args>(fields: Fields, readArgs: (args: Buffer) => Args) {
  const status = STATUSES.find((name) => name === fields['status']);
  if (status === undefined) throw new MalformedError('`status` is none of those known');
  const suspensions = fields['suspensions'] === undefined ? [] : readSuspensions(fields['suspensions'], readArgs);
  const [suspension] = suspensions;
  if (status === 'suspended' && suspension === undefined) throw new MalformedError('suspended without a suspension');
  const error = fields['error'] === undefined ? undefined : readError(fields['error']);
  if (status === 'error' && error === undefined) throw new MalformedError('status error without an error');
  return {
    status,
    seq: uint(fields, 'seq'),
    suspensions,
    metrics: readMetrics(map(fields['metrics'], 'metrics')),
    ...(suspension !== undefined && { suspension }),
    ...(error !== undefined && { error }),
  };
}

function readSuspensions<Args>(value: unknown, readArgs: (args: Buffer) => Args): Suspension<Args>[] {
  if (!Array.isArray(value)) throw new MalformedError('`suspensions` is not an array');
  return value.map((item: unknown) => {
    const fields = map(item, 'suspensions');
    return {
      suspensionId: string(fields, 'id'),
      extensionName: string(fields, 'extension'),
      method: string(fields, 'method'),
      args: readArgs(bytes(fields, 'args')),
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
  return fields[key] === undefined ? [] : (list(bytes(fields, key), key) as Item[]);
}

function list(payload: Buffer, key: string): unknown[] {
  const value = decodePayload(payload);
  if (!Array.isArray(value)) throw new MalformedError(`\`${key}\` is not an array`);
  return value;
}

function bufferList(fields: Fields, key: string): Buffer {
  return fields[key] === undefined ? Buffer.of(0x90) : keep(bytes(fields, key));
}

/** A small view must not keep a whole chunk of the socket alive. */
function keep(view: Buffer): Buffer {
  return view.length * 2 < view.buffer.byteLength ? Buffer.from(view) : view;
}

export function readCheck(fields: Fields): HandlerCheck {
  const suspendMode = string(fields, 'suspendMode');
  if (suspendMode !== 'await' && suspendMode !== 'stack') throw new MalformedError('`suspendMode` is none of those known');
  return { capabilities: strings(fields, 'capabilities'), suspendMode };
}

export function readHandle(fields: Fields): Buffer {
  return Buffer.from(bytes(fields, 'handler'));
}

const STATS_KEYS = [
  'totalExecutions',
  'activeInstances',
  'availableInstances',
  'suspendedInstances',
  'cacheHitRate',
  'avgExecutionTimeUs',
  'p50ExecutionTimeUs',
  'p95ExecutionTimeUs',
  'p99ExecutionTimeUs',
  'totalMemoryBytes',
  'instancesCreated',
  'instancesReused',
  'cacheEntries',
  'cacheSizeBytes',
  'queued',
  'uptimeMs',
] as const satisfies readonly (keyof RuntimeStats)[];

const FLOAT_STATS: ReadonlySet<string> = new Set<keyof RuntimeStats>(['cacheHitRate', 'avgExecutionTimeUs']);

export function readStats(fields: Fields): RuntimeStats {
  return Object.fromEntries(
    STATS_KEYS.map((key) => [key, FLOAT_STATS.has(key) ? float(fields, key) : uint(fields, key)]),
  ) as unknown as RuntimeStats;
}

/** Before a sidecar runs, nothing has been executed and nothing is held. */
export function noStats(): RuntimeStats {
  return Object.fromEntries(STATS_KEYS.map((key) => [key, 0])) as unknown as RuntimeStats;
}
