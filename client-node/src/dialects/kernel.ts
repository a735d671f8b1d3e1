/**
 * The workspace kernel's dialect: `createRuntime(config)` as its executor loads it. MessagePack Buffers both ways, flat
 * errors, counted host calls, `getStats()` and `getMetrics()` synchronous (a copy, see stats.ts).
 */
import type { RuntimeConfig } from '../config.js';
import { Core } from '../core.js';
import type { ExecuteRequest } from '../messages.js';
import { readBufferResult } from '../results.js';
import type { BufferResult, RuntimeStats, Suspension } from '../types.js';
import { checkAsyncResult, checkSource, checkTimeout, contextFields } from '../validate.js';
import { StatsCopy } from './stats.js';

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

export interface KernelResult {
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
 * Throws for a configuration that is wrong, but not for a sidecar that is missing: the kernel takes a throw here for "no
 * runtime" and would go on with its mock. Its first call rejects instead.
 */
export function createRuntime(config: RuntimeConfig = {}): KernelRuntime {
  const core = new Core(config);
  const copy = new StatsCopy(core);
  const done = (result: BufferResult): KernelResult => {
    copy.touch();
    return kernelResult(result);
  };
  return {
    async execute(handlerCode, context, timeoutMs) {
      const request = kernelRequest(context, timeoutMs);
      return done(await core.execute({ ...request, source: checkSource(handlerCode) }, readBufferResult));
    },
    async executeCompiled(bytecode, context, timeoutMs) {
      return done(await core.executeCompiled(bytecode, kernelRequest(context, timeoutMs), readBufferResult));
    },
    async precompile(handlerCode) {
      return core.precompile(handlerCode);
    },
    async resume(suspensionId, result) {
      return done(await core.resume(suspensionId, checkAsyncResult(result as never), readBufferResult));
    },
    getStats: () => ({ ...copy.stats }),
    getMetrics: () => copy.metrics,
    async shutdown() {
      copy.stop();
      await core.shutdown();
    },
  };
}

function kernelRequest(context: KernelContext, timeoutMs: number | undefined): ExecuteRequest {
  return contextFields(context, checkTimeout(timeoutMs), context?.extensionRegistry, 'messagepack');
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
  if (result.returnValue !== undefined) kernel.returnValue = result.returnValue;
  if (result.suspension !== undefined) kernel.suspension = result.suspension;
  if (error !== undefined) {
    kernel.error = { code: error.code, message: error.message };
    if (error.location !== undefined) Object.assign(kernel.error, error.location);
    if (error.snippet !== undefined) kernel.error.sourceSnippet = error.snippet.code;
  }
  return kernel;
}
