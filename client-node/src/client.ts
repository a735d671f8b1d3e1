/**
 * NexusRuntime: the API. Starts its sidecar at the first use, not in the constructor.
 *
 * Faults of the caller and of the connection reject; what a handler does wrong is a result with `status: 'error'`.
 */
import { signalOf } from './abort.js';
import type { RuntimeConfig } from './config.js';
import { Core } from './core.js';
import type { ExecutionList } from './maps.js';
import { NexusError } from './errors.js';
import { checkCount } from './names.js';
import { withCaller } from './failures.js';
import type { HelloInfo } from './answers.js';
import type { ExecuteRequest } from './requests.js';
import { asMessagePack, asPayload } from './payload.js';
import type { ResidentState, ResidentUse } from './resident.js';
import { readBufferResult, readPlainResult } from './results.js';
import { runMany, type ManyContext, type ManyOptions, type ManyResult } from './many.js';
import { runHandler, type Extensions, type ExtensionsOf, type RunOptions, type RunResult } from './run.js';
import type { RuntimeStats } from './statistics.js';
import type {
  AsyncResult,
  BufferContext,
  BufferResult,
  ExecutionResult,
  HandlerCheck,
  HandlerContext,
  PrecompileOptions,
} from './types.js';
import { checkConsistentResult, checkContext, checkPrecompileOptions, checkSource, checkTimeout, contextFields } from './validate.js';

/** Of a call that runs one segment. */
export interface CallOptions {
  /** Ends the execution; the call then rejects with CANCELLED and the signal's reason as `cause`. */
  signal?: AbortSignal;
}

/** A resident state, or what an execution demands of it. */
export type OnResident<State extends object = Record<string, unknown>> = ResidentState<State> | ResidentUse<State>;

export class NexusRuntime {
  readonly #core: Core;

  /** Checks the configuration and throws INVALID_ARGUMENT; touches neither files nor processes. */
  constructor(config: RuntimeConfig = {}) {
    this.#core = new Core(config);
  }

  /** Starts the sidecar ahead of the first call, and says what it is and which limits are in force. */
  async start(): Promise<HelloInfo> {
    const connection = this.#core.connection();
    // The ping holds Node alive until the hello is here.
    const [info] = await Promise.all([connection.hello, this.#core.ping()]);
    return info;
  }

  executeHandler(code: string, context: BufferContext, timeoutMs?: number, options?: CallOptions): Promise<BufferResult>;
  executeHandler(code: string, context?: HandlerContext, timeoutMs?: number, options?: CallOptions): Promise<ExecutionResult>;
  executeHandler(
    code: string,
    context: HandlerContext = {},
    timeoutMs?: number,
    options?: CallOptions,
  ): Promise<ExecutionResult | BufferResult> {
    try {
      checkCount('executeHandler', arguments, 4);
      const { request, inBuffers } = requestOf(context, timeoutMs);
      request.source = checkSource(code);
      const signal = signalOf(options);
      if (!inBuffers) return this.#core.execute(request, readPlainResult, signal);
      return this.#core.execute(request, readBufferResult, signal);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /**
   * An opaque, signed handle for `executeCompiledHandler`; never bytecode. COMPILATION_ERROR rejects. The handle keeps its
   * `suspendMode`: an execution that asks for the other one is INVALID_ARGUMENT.
   */
  async precompileHandler(code: string, options?: PrecompileOptions): Promise<Buffer> {
    checkCount('precompileHandler', arguments, 2);
    return this.#core.precompile(code, checkPrecompileOptions(options));
  }

  /** With a handle that the sidecar no longer knows (it restarted), the handler is compiled again, once. */
  executeCompiledHandler(compiled: Uint8Array, context: BufferContext, timeoutMs?: number, options?: CallOptions): Promise<BufferResult>;
  executeCompiledHandler(compiled: Uint8Array, context?: HandlerContext, timeoutMs?: number, options?: CallOptions): Promise<ExecutionResult>;
  async executeCompiledHandler(
    compiled: Uint8Array,
    context: HandlerContext = {},
    timeoutMs?: number,
    options?: CallOptions,
  ): Promise<ExecutionResult | BufferResult> {
    checkCount('executeCompiledHandler', arguments, 4);
    const { request, inBuffers } = requestOf(context, timeoutMs);
    const signal = signalOf(options);
    if (!inBuffers) return this.#core.executeCompiled(compiled, request, readPlainResult, signal);
    return this.#core.executeCompiled(compiled, request, readBufferResult, signal);
  }

  /**
   * Goes on with a suspended execution: `{success: true, value}` returns the value from the extension call,
   * `{success: false, error}` throws there. The result is in Buffers when the execution's context was.
   */
  async resumeHandler(suspensionId: string, result: AsyncResult, options?: CallOptions): Promise<ExecutionResult>;
  async resumeHandler(
    suspensionId: string,
    result: AsyncResult | Buffer,
    options?: CallOptions,
  ): Promise<ExecutionResult | BufferResult>;
  async resumeHandler(
    suspensionId: string,
    result: AsyncResult | Buffer,
    options?: CallOptions,
  ): Promise<ExecutionResult | BufferResult> {
    checkCount('resumeHandler', arguments, 3);
    const signal = signalOf(options);
    const outcome = checkConsistentResult(result);
    if (!this.#core.resumesInBuffers(suspensionId)) {
      if ('value' in outcome && !Buffer.isBuffer(result)) outcome.value = asPayload(outcome.value);
      return this.#core.resume(suspensionId, outcome, readPlainResult, signal);
    }
    if ('value' in outcome) outcome.value = asMessagePack(outcome.value);
    return this.#core.resume(suspensionId, outcome, readBufferResult, signal);
  }

  /** Ends a suspended execution. False when there was nothing to end. */
  async cancel(suspensionId: string): Promise<boolean> {
    checkCount('cancel', arguments, 1);
    return this.#core.cancel(suspensionId);
  }

  /**
   * Leaves a state with the sidecar: a map (or a Buffer of MessagePack). Executions then run on it by its handle, given as
   * `state`, and their mutations are applied to it. It goes with `dispose`, and with the sidecar. `createState<State>(...)` has
   * patches checked and types snapshots; nothing checks it at run time.
   */
  createState(state?: unknown): Promise<ResidentState>;
  createState<State extends object>(state: State | Buffer): Promise<ResidentState<State>>;
  async createState<State extends object>(state: unknown = {}): Promise<ResidentState<State>> {
    checkCount('createState', arguments, 1);
    return this.#core.createState<State>(state);
  }

  /**
   * The whole loop: executes, delivers effects, calls extensions, resumes; returns the value or throws NexusError.
   *
   * `code` may be a handle of `precompileHandler`. The type parameters describe the handler: `run<Result, State, Exts>(...)` has `state`, `extensions` and the mutations
   * checked against them, and says what `value` is. Without them everything is as unknown as it is.
   */
  run(code: string | Uint8Array, options?: RunOptions): Promise<RunResult>;
  run<Result = unknown, State extends object = Record<string, unknown>, Exts extends ExtensionsOf<Exts> = Extensions>(
    code: string | Uint8Array,
    options: RunOptions<State, Exts> & { state?: State | OnResident<State> | OnResident | Buffer },
  ): Promise<RunResult<State, Result>>;
  async run(code: string | Uint8Array, options: RunOptions = {}): Promise<RunResult> {
    try {
      checkCount('run', arguments, 2);
      return await runHandler(this.#core, code, options);
    } catch (error) {
      throw withCaller(error);
    }
  }

  /**
   * Many executions in one request, one after another, each isolated from the next: one handler on many contexts, or contexts that bring
   * their own `code`. Results come in the order of the contexts; what fails is that result's `error`, and the others go on.
   */
  runMany<Result = unknown, State extends object = Record<string, unknown>, Exts extends ExtensionsOf<Exts> = Extensions>(
    code: string | Uint8Array,
    contexts: readonly ManyContext[],
    options?: ManyOptions<State, Exts>,
  ): Promise<ManyResult<Result>[]>;
  runMany<Result = unknown, State extends object = Record<string, unknown>, Exts extends ExtensionsOf<Exts> = Extensions>(
    handlers: readonly (ManyContext & { code: string | Uint8Array })[],
    options?: ManyOptions<State, Exts>,
  ): Promise<ManyResult<Result>[]>;
  async runMany(
    first: string | Uint8Array | readonly ManyContext[],
    second?: readonly ManyContext[] | ManyOptions,
    third?: ManyOptions,
  ): Promise<ManyResult[]> {
    try {
      checkCount('runMany', arguments, 3);
      // A list brings its handlers along; whatever else comes first is what all have in common, or a mistake.
      if (Array.isArray(first)) {
        if (third !== undefined) throw new NexusError('INVALID_ARGUMENT', 'handlers that are a list are followed by options, and by nothing more');
        return await runMany(this.#core, undefined, first, (second === undefined ? {} : second) as ManyOptions);
      }
      return await runMany(this.#core, first as string, second as readonly ManyContext[], third === undefined ? {} : third);
    } catch (error) {
      throw withCaller(error);
    }
  }

  /** The tokens that a handler needs, from its source. */
  async inferCapabilities(code: string): Promise<string[]> {
    checkCount('inferCapabilities', arguments, 1);
    return (await this.#core.check(code)).capabilities;
  }

  /** Compiles without keeping: capabilities and how the handler suspends. COMPILATION_ERROR rejects. */
  async checkHandler(code: string): Promise<HandlerCheck> {
    checkCount('checkHandler', arguments, 1);
    return this.#core.check(code);
  }

  async getStats(): Promise<RuntimeStats> {
    return this.#core.stats();
  }

  /** Every execution that this sidecar holds, also those of other clients; PERMISSION_DENIED where its user is another's. */
  async listExecutions(): Promise<ExecutionList> {
    return this.#core.executions();
  }

  /** Ends an execution by its id in that list; its own client gets CANCELLED. False: there was none. */
  async killExecution(id: number): Promise<boolean> {
    return this.#core.kill(id);
  }

  async getPrometheusMetrics(): Promise<string> {
    return this.#core.metrics();
  }

  async ping(): Promise<void> {
    return this.#core.ping();
  }

  /** Lets what runs finish, up to `shutdownTimeoutMs`; then the sidecar is killed. Later calls reject. */
  shutdown(): Promise<void> {
    return this.#core.shutdown();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.shutdown();
  }
}

/** A context whose state is a Buffer is MessagePack throughout, and so is what comes of it (`inBuffers`). */
function requestOf(context: HandlerContext, timeoutMs: number | undefined): { request: ExecuteRequest; inBuffers: boolean } {
  const checked = checkContext(context);
  const inBuffers = Buffer.isBuffer(checked.state);
  const request = contextFields(checked, checkTimeout(timeoutMs), checked.extensionRegistry, inBuffers ? 'messagepack' : 'bytes');
  return { request, inBuffers };
}
