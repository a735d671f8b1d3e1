/**
 * The reactor's dialect: `new WasmRuntime(config)` as its sandbox executor uses it. Plain objects, `stateSnapshot`,
 * `operation`, typed view commands. `getStats()` is a copy (see stats.ts), as its type declares it synchronous.
 */
import { NexusError } from '../errors.js';
import type { ExecuteRequest } from '../requests.js';
import { asPayload } from '../payload.js';
import { readPlainResult } from '../results.js';
import type { RuntimeStats } from '../statistics.js';
import type { ExecutionResult, HandlerContext, LogRecord, Suspension, ViewCommand } from '../types.js';
import { checkAsyncResult, checkHandle, checkIsContext, checkSource, checkTimeout, contextFields } from '../validate.js';
import { checkDoorContext, Door, label, tellAs, type DoorConfig, type Told } from './door.js';

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

export interface ReactorResult extends Told {
  status: 'success' | 'suspended' | 'error';
  /** `any`, like `code` below: the reactor's own types are narrower than what can be said here, and ours are assignable to them. */
  returnValue?: any;
  stateMutations: { operation: 'set' | 'delete'; key: string; value?: any }[];
  events: { name: string; payload: unknown; timestamp: number }[];
  viewCommands: ReactorViewCommand[];
  logs: LogRecord[];
  suspension?: Suspension;
  suspensions: Suspension[];
  error?: {
    code: any;
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

/** The sidecar starts in the background; a configuration that is wrong, or a sidecar that is missing, is what each call rejects with. */
export class WasmRuntime {
  readonly #door: Door;

  /**
   * `enableAOT` is left out: in the reactor's words it is about compiling single handlers ahead of time (its default is false),
   * in the sidecar's about the engine itself, which would then interpret and miss the reactor's own deadlines. A handler's deadline is
   * what the reactor says, 0 being none: the sidecar sets none of its own.
   */
  constructor(config: DoorConfig = {}) {
    this.#door = new Door(config, (given) => ({
      ...given,
      timeoutMs: given.timeoutMs ?? (given.connect === undefined ? 0 : undefined),
      enableAOT: undefined,
    }));
  }

  async executeHandler(handlerCode: string, context: ReactorContext, timeoutMs?: number): Promise<ReactorResult> {
    return this.#door.run(async (core) => {
      const source = checkSource(handlerCode);
      const send = (granted: ExecuteRequest): Promise<ExecutionResult> => core.execute({ ...granted, source }, readPlainResult);
      return reactorResult(await this.#door.granted(reactorRequest(context, timeoutMs), source, send));
    });
  }

  async precompileHandler(handlerCode: string): Promise<Uint8Array> {
    return this.#door.core.precompile(handlerCode);
  }

  async executeCompiledHandler(bytecode: Uint8Array, context: ReactorContext, timeoutMs?: number): Promise<ReactorResult> {
    return this.#door.run(async (core) => {
      const send = (granted: ExecuteRequest): Promise<ExecutionResult> => core.executeCompiled(bytecode, granted, readPlainResult);
      return reactorResult(await this.#door.granted(reactorRequest(context, timeoutMs), checkHandle(bytecode), send));
    });
  }

  async resumeHandler(suspensionId: string, result: ReactorAsyncResult): Promise<ReactorResult> {
    if (Buffer.isBuffer(result)) throw new NexusError('INVALID_ARGUMENT', 'the result of an extension call is an object here');
    const outcome = checkAsyncResult(result);
    if ('value' in outcome) outcome.value = asPayload(outcome.value);
    return reactorResult(await this.#door.resume(suspensionId, outcome, readPlainResult));
  }

  getStats(): RuntimeStats {
    return this.#door.copy.stats;
  }

  async shutdown(): Promise<void> {
    await this.#door.shutdown();
  }
}

function reactorRequest(given: ReactorContext, timeoutMs: number | undefined): ExecuteRequest {
  checkIsContext(given);
  const context = { ...given };
  checkDoorContext(context, 'stateSnapshot');
  const { stateSnapshot, extensionRegistry, panelId, handlerName, ...rest } = context;
  const cut = { panelId: label(panelId), handlerName: label(handlerName) };
  return contextFields(
    { ...rest, ...cut, state: stateSnapshot, extensionRegistry: reliable(extensionRegistry) } as HandlerContext,
    checkTimeout(timeoutMs),
  );
}

/**
 * The reactor lists own methods only, so an extension that is an instance of a class comes without any. Such a registry would
 * have calls refused that the reactor can serve: it counts as absent, "the client knows".
 */
function reliable(registry: Record<string, string[]> | undefined): Record<string, string[]> | undefined {
  if (registry === undefined || registry === null) return undefined;
  const copy = { ...registry };
  return Object.values(copy).every((methods) => methods.length > 0) ? copy : undefined;
}

function reactorResult(result: ExecutionResult): ReactorResult {
  const { metrics, error } = result;
  const reactor: ReactorResult = {
    status: result.status,
    stateMutations: result.stateMutations.map(({ op, ...mutation }) => ({ operation: op, ...mutation })),
    events: result.events,
    viewCommands: result.viewCommands.map(reactorViewCommand),
    logs: result.logs,
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
  tellAs(reactor, result);
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
