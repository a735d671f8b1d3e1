/**
 * The reactor's dialect: `new WasmRuntime(config)` as its sandbox executor uses it. Plain objects, `stateSnapshot`,
 * `operation`, typed view commands. `getStats()` is a copy (see stats.ts), as its type declares it synchronous.
 */
import type { RuntimeConfig } from '../config.js';
import { Core } from '../core.js';
import type { ExecuteRequest } from '../messages.js';
import { readPlainResult } from '../results.js';
import type { ExecutionResult, RuntimeStats, Suspension, ViewCommand } from '../types.js';
import { checkAsyncResult, checkSource, checkTimeout, contextFields } from '../validate.js';
import { StatsCopy } from './stats.js';

export interface ReactorContext {
  panelId?: string;
  handlerName?: string;
  stateSnapshot?: Record<string, unknown>;
  args?: unknown;
  scope?: unknown;
  capabilities?: string[];
  extensionRegistry?: Record<string, string[]>;
}

export type ReactorAsyncResult = { success: true; value: unknown } | { success: false; error: string };

export interface ReactorViewCommand {
  type: 'setFilter' | 'scrollTo' | 'focus' | 'custom';
  componentId?: string;
  args: Record<string, unknown>;
}

export interface ReactorResult {
  status: 'success' | 'suspended' | 'error';
  returnValue?: unknown;
  stateMutations: { operation: 'set' | 'delete'; key: string; value?: unknown }[];
  events: { name: string; payload: unknown; timestamp: number }[];
  viewCommands: ReactorViewCommand[];
  suspension?: Suspension;
  suspensions: Suspension[];
  error?: {
    code: string;
    message: string;
    stack?: string;
    location?: { line: number; column: number };
    snippet?: string;
  };
  metrics: {
    durationUs: number;
    memoryUsedBytes: number;
    memoryPeakBytes: number;
    hostCalls: Record<string, number>;
    instructionCount: number;
    compilationTimeUs?: number;
    cacheHit: boolean;
  };
}

export class WasmRuntime {
  readonly #core: Core;
  readonly #copy: StatsCopy;

  /**
   * `enableAOT` is left out: in the reactor's words it is about compiling single handlers ahead of time (its default is false),
   * in the sidecar's about the engine itself, which would then interpret and miss the reactor's own deadlines.
   */
  constructor(config: RuntimeConfig = {}) {
    this.#core = new Core({ ...config, enableAOT: undefined });
    this.#copy = new StatsCopy(this.#core);
  }

  async executeHandler(handlerCode: string, context: ReactorContext, timeoutMs?: number): Promise<ReactorResult> {
    const request = reactorRequest(context, timeoutMs);
    return this.#done(await this.#core.execute({ ...request, source: checkSource(handlerCode) }, readPlainResult));
  }

  async precompileHandler(handlerCode: string): Promise<Uint8Array> {
    return this.#core.precompile(handlerCode);
  }

  async executeCompiledHandler(
    bytecode: Uint8Array,
    context: ReactorContext,
    timeoutMs?: number,
  ): Promise<ReactorResult> {
    return this.#done(await this.#core.executeCompiled(bytecode, reactorRequest(context, timeoutMs), readPlainResult));
  }

  async resumeHandler(suspensionId: string, result: ReactorAsyncResult): Promise<ReactorResult> {
    return this.#done(await this.#core.resume(suspensionId, checkAsyncResult(result), readPlainResult));
  }

  getStats(): RuntimeStats {
    return { ...this.#copy.stats };
  }

  async shutdown(): Promise<void> {
    this.#copy.stop();
    await this.#core.shutdown();
  }

  #done(result: ExecutionResult): ReactorResult {
    this.#copy.touch();
    return reactorResult(result);
  }
}

function reactorRequest(context: ReactorContext, timeoutMs: number | undefined): ExecuteRequest {
  const { stateSnapshot, extensionRegistry, ...rest } = context;
  return contextFields(
    { ...rest, state: stateSnapshot, extensionRegistry: reliable(extensionRegistry) },
    checkTimeout(timeoutMs),
  );
}

/**
 * The reactor lists own methods only, so an extension that is an instance of a class comes without any. Such a registry would
 * have calls refused that the reactor can serve: it counts as absent, "the client knows".
 */
function reliable(registry: Record<string, string[]> | undefined): Record<string, string[]> | undefined {
  if (registry === undefined || registry === null) return undefined;
  return Object.values(registry).every((methods) => methods.length > 0) ? registry : undefined;
}

function reactorResult(result: ExecutionResult): ReactorResult {
  const { metrics, error } = result;
  const reactor: ReactorResult = {
    status: result.status,
    stateMutations: result.stateMutations.map(({ op, ...mutation }) => ({ operation: op, ...mutation })),
    events: result.events,
    viewCommands: result.viewCommands.map(reactorViewCommand),
    suspensions: result.suspensions,
    metrics: {
      durationUs: metrics.durationUs,
      memoryUsedBytes: metrics.memoryUsedBytes,
      memoryPeakBytes: metrics.memoryPeakBytes,
      hostCalls: metrics.hostCalls,
      instructionCount: metrics.instructionCount,
      cacheHit: metrics.cacheHit,
    },
  };
  if (metrics.compilationTimeUs !== undefined) reactor.metrics.compilationTimeUs = metrics.compilationTimeUs;
  if (result.returnValue !== undefined) reactor.returnValue = result.returnValue;
  if (result.suspension !== undefined) reactor.suspension = result.suspension;
  if (error !== undefined) {
    reactor.error = { code: error.code, message: error.message };
    if (error.handlerStack !== undefined) reactor.error.stack = error.handlerStack;
    if (error.location !== undefined) reactor.error.location = error.location;
    if (error.snippet !== undefined) reactor.error.snippet = error.snippet.code;
  }
  return reactor;
}

const KNOWN_COMMANDS = ['setFilter', 'scrollTo', 'focus'] as const;

function reactorViewCommand({ viewId, command, params }: ViewCommand): ReactorViewCommand {
  const type = KNOWN_COMMANDS.find((name) => name === command);
  if (type !== undefined) return { type, componentId: viewId, args: params };
  // The name of an own command has no place of its own in this dialect; a parameter `command` would win over it.
  return { type: 'custom', componentId: viewId, args: { command, ...params } };
}
