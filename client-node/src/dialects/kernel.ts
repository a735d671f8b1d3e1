/**
 * The workspace kernel's dialect: `createRuntime(config)` as its executor loads it. MessagePack Buffers both ways, flat
 * errors, counted host calls, `getStats()` and `getMetrics()` synchronous (a copy, see stats.ts).
 */
import type { ExecuteRequest } from '../requests.js';
import { asBuffer } from '../payload.js';
import { readBufferResult } from '../results.js';
import type { RuntimeStats } from '../statistics.js';
import type { BufferResult, HandlerContext, Suspension } from '../types.js';
import { checkAsyncResult, checkHandle, checkIsContext, checkSource, checkTimeout, contextFields, type Outcome } from '../validate.js';
import { checkDoorContext, Door, label, tellAs, type DoorConfig, type Told } from './door.js';

export interface KernelContext {
  panelId: string;
  handlerName: string;
  /** MessagePack; an empty Buffer means `{}`, nil for args. */
  state: Buffer;
  args: Buffer;
  scope: Buffer;
  capabilities: string[];
  extensionRegistry?: Record<string, string[]>;
}

export interface KernelAsyncResult {
  success: boolean;
  /** MessagePack; absent or empty: nil. */
  value?: Buffer;
  error?: string;
}

export interface KernelResult extends Told {
  status: 'success' | 'suspended' | 'error';
  returnValue?: Buffer;
  stateMutations: Buffer;
  events: Buffer;
  viewCommands: Buffer;
  logs: Buffer;
  suspension?: Suspension<Buffer>;
  suspensions: Suspension<Buffer>[];
  error?: { code: string; message: string; line?: number; column?: number; sourceSnippet?: string };
  metrics: {
    executionTimeUs: number;
    memoryUsedBytes: number;
    memoryPeakBytes: number;
    hostCalls: number;
    cacheHit: boolean;
  };
}

export interface KernelRuntime {
  execute(handlerCode: string, context: KernelContext, timeoutMs?: number): Promise<KernelResult>;
  executeCompiled(bytecode: Uint8Array, context: KernelContext, timeoutMs?: number): Promise<KernelResult>;
  precompile(handlerCode: string): Promise<Buffer>;
  resume(suspensionId: string, result: KernelAsyncResult): Promise<KernelResult>;
  getStats(): RuntimeStats;
  getMetrics(): string;
  shutdown(): Promise<void>;
}

/**
 * Never throws: the kernel takes a throw here for "no runtime" and would go on with its mock. A configuration that is wrong, or a
 * sidecar that is missing, is what each call rejects with. The sidecar starts in the background.
 */
export function createRuntime(config: DoorConfig = {}): KernelRuntime {
  const door = new Door(config, (given) => given);
  return {
    execute: (source, context, timeoutMs) =>
      door.run(async (core) => {
        const send = (granted: ExecuteRequest): Promise<BufferResult> => core.execute({ ...granted, source }, readBufferResult);
        return kernelResult(await door.granted(kernelRequest(context, timeoutMs), checkSource(source), send));
      }),
    executeCompiled: (handle, context, timeoutMs) =>
      door.run(async (core) => {
        const send = (granted: ExecuteRequest): Promise<BufferResult> => core.executeCompiled(handle, granted, readBufferResult);
        return kernelResult(await door.granted(kernelRequest(context, timeoutMs), checkHandle(handle), send));
      }),
    precompile: async (source) => door.core.precompile(source),
    async resume(suspensionId, result) {
      return kernelResult(await door.resume(suspensionId, kernelOutcome(result), readBufferResult));
    },
    getStats: () => door.copy.stats,
    getMetrics: () => door.copy.metrics,
    shutdown: () => door.shutdown(),
  };
}

/** Every payload of this door is MessagePack, also one that is no Buffer: other encoders return a Uint8Array. */
function messagePack<Value>(value: Value): Value | Buffer {
  return value instanceof Uint8Array ? asBuffer(value) : value;
}

function kernelRequest(given: KernelContext, timeoutMs: number | undefined): ExecuteRequest {
  checkIsContext(given);
  const context = { ...given };
  checkDoorContext(context, 'state');
  const { state, args, scope, panelId, handlerName } = context;
  const cut = { panelId: label(panelId), handlerName: label(handlerName) };
  const payloads = { state: messagePack(state), args: messagePack(args), scope: messagePack(scope) };
  return contextFields({ ...context, ...payloads, ...cut } as HandlerContext, checkTimeout(timeoutMs), context.extensionRegistry, 'messagepack');
}

function kernelOutcome(result: KernelAsyncResult): Outcome {
  const outcome = checkAsyncResult(result as never);
  if ('value' in outcome) outcome.value = messagePack(outcome.value);
  return outcome;
}

function kernelResult(result: BufferResult): KernelResult {
  const { status, stateMutations, events, viewCommands, logs, suspensions, metrics, error } = result;
  const kernel: KernelResult = {
    status,
    stateMutations,
    events,
    viewCommands,
    logs,
    suspensions,
    metrics: {
      executionTimeUs: metrics.durationUs,
      memoryUsedBytes: metrics.memoryUsedBytes,
      memoryPeakBytes: metrics.memoryPeakBytes,
      hostCalls: Object.values(metrics.hostCalls).reduce((sum, count) => sum + count, 0),
      cacheHit: metrics.cacheHit,
    },
  };
  tellAs(kernel, result);
  if (result.returnValue !== undefined) kernel.returnValue = result.returnValue;
  if (result.suspension !== undefined) kernel.suspension = result.suspension;
  if (error !== undefined) {
    kernel.error = { code: error.code, message: error.message };
    if (error.location !== undefined) Object.assign(kernel.error, error.location);
    if (error.snippet !== undefined) kernel.error.sourceSnippet = error.snippet.code;
  }
  return kernel;
}
