/**
 * The whole loop of one handler: execute, deliver each segment, call extensions, resume, until it ends.
 *
 * Invariants: segments reach `onSegment` in the order of their `seq`, whatever order the answers arrive in; each suspension's
 * extension is called once; the promise settles once, and nothing that happens later (an extension that answers after the
 * end) is an unhandled rejection. A handler reaches own properties of the extensions only, never a prototype.
 */
import { checkSignal } from './abort.js';
import { Calls } from './calls.js';
import type { Connection } from './connection.js';
import { cancelOn, executeOn, resumeOn, type Core } from './core.js';
import { midway, NexusError, toExtensionError, type ExtensionError } from './errors.js';
import type { Place } from './places.js';
import { readPlainResult } from './results.js';
import type {
  EmittedEvent,
  ExecutionMetrics,
  ExecutionResult,
  HandlerContext,
  HandlerNote,
  LogRecord,
  StateMutation,
  Suspension,
  ViewCommand,
} from './types.js';
import { checkHandle, checkMap, checkSource, checkTimeout, contextFields, type Outcome } from './validate.js';

/** Called with the handler's arguments; a promise is awaited, what it throws is thrown in the handler. */
export type ExtensionMethod = (...args: any[]) => unknown;
/** By name and method. Own properties only. */
export type Extensions = Readonly<Record<string, Readonly<Record<string, ExtensionMethod>>>>;

/** What `Exts` must look like: any interface whose members hold methods, with or without an index signature. */
export type ExtensionsOf<Exts> = { readonly [Name in keyof Exts]: { readonly [Method in keyof Exts[Name]]: ExtensionMethod } };

/** What happened between two suspensions. */
export interface Segment<State extends object = Record<string, unknown>> {
  seq: number;
  status: ExecutionResult['status'];
  /** On a resident state: its version with this segment's mutations in it. */
  stateVersion?: number;
  stateMutations: StateMutation<State>[];
  events: EmittedEvent[];
  viewCommands: ViewCommand[];
  logs: LogRecord[];
  /** Calls that are outstanding after this segment, in the order in which they were made. */
  suspensions: Suspension[];
  /** What the handler's author should know of its text: in the first segment, if there is something. */
  warnings?: HandlerNote[];
  metrics: ExecutionMetrics;
}

export interface RunOptions<State extends object = Record<string, unknown>, Exts = Extensions>
  extends Omit<HandlerContext, 'extensionRegistry'> {
  /** Own properties only: `{ http: { get: async (url) => ... } }`. */
  extensions?: Exts;
  /** Called at once for every segment, the last one included. What it throws ends the run and is thrown by it. */
  onSegment?: (segment: Segment<State>) => unknown;
  /** Ends the execution, running or suspended; `run` then rejects with CANCELLED and the signal's reason as `cause`. */
  signal?: AbortSignal;
  timeoutMs?: number;
}

export interface RunResult<State extends object = Record<string, unknown>, Result = unknown> {
  /** What the handler returned. Its type is what the caller says: nothing checks it at run time. */
  value: Result;
  /** The effects of all segments, in order. */
  stateMutations: StateMutation<State>[];
  events: EmittedEvent[];
  viewCommands: ViewCommand[];
  logs: LogRecord[];
  segments: Segment[];
  /** On a resident state: its version at the end. */
  stateVersion?: number;
  /** Of the whole execution. */
  metrics: ExecutionMetrics;
}

export async function runHandler(core: Core, code: string | Uint8Array, options: RunOptions): Promise<RunResult> {
  checkMap('options', options);
  const { extensions = {}, onSegment } = options;
  checkMap('extensions', extensions);
  if (onSegment !== undefined && typeof onSegment !== 'function') {
    throw new NexusError('INVALID_ARGUMENT', '`onSegment` is not a function');
  }
  const signal = checkSignal(options);
  const request = contextFields(options, checkTimeout(options.timeoutMs), registryOf(extensions));
  if (code instanceof Uint8Array) checkHandle(code);
  else request.source = checkSource(code);
  if (signal?.aborted === true) throw cancelled(signal);
  const connection = core.connection();
  return new Promise<RunResult>((resolve, reject) => {
    const run = new Run(connection, extensions, onSegment, { resolve, reject });
    if (Object.keys(extensions).length > 0) run.needsPlace();
    run.watch(signal);
    const { place } = run;
    run.send((onId) => {
      if (!(code instanceof Uint8Array)) return executeOn(connection, request, readPlainResult, { onId, place });
      return core.withHandle(code, (handler) => {
        if (run.stopped) return Promise.reject(new NexusError('CANCELLED', 'the run was aborted'));
        return executeOn(connection, { ...request, handler }, readPlainResult, { onId, place });
      });
    });
  });
}

/** Names and methods as the handler may see them in `$ext.list()`. */
function registryOf(extensions: Extensions): Record<string, string[]> {
  const registry: Record<string, string[]> = Object.create(null) as Record<string, string[]>;
  for (const [name, extension] of Object.entries(extensions)) {
    if (typeof extension !== 'object' || extension === null) continue;
    registry[name] = Object.keys(extension).filter((method) => typeof extension[method] === 'function');
  }
  return registry;
}

/** What a resume is for. */
interface Resumed {
  suspension: string;
  /** Whether the call is answered otherwise. */
  onRefused(error: unknown): boolean;
}

interface Settle {
  resolve(result: RunResult): void;
  reject(error: unknown): void;
}

class Run {
  readonly #connection: Connection;
  readonly #extensions: Extensions;
  readonly #onSegment: RunOptions['onSegment'];
  readonly #promise: Settle;

  readonly #segments: Segment[] = [];
  /** Results that came before one with a lower seq. */
  readonly #early = new Map<number, { result: ExecutionResult; answered: string | undefined }>();
  readonly #calls = new Calls<unknown[]>();
  /** Ids of requests that are unanswered. */
  readonly #inFlight = new Set<number>();
  /** What `onSegment` returned, when that were promises. */
  readonly #deliveries: PromiseLike<unknown>[] = [];
  /** Why the run is being ended from outside, once it is. */
  #stopped: { error: unknown } | undefined;
  #finished = false;
  readonly #unwatch: (() => void)[] = [];
  /** Where it may be suspended. */
  place: Place | undefined;

  constructor(connection: Connection, extensions: Extensions, onSegment: RunOptions['onSegment'], promise: Settle) {
    this.#connection = connection;
    this.#extensions = extensions;
    this.#onSegment = onSegment;
    this.#promise = promise;
  }

  needsPlace(): void {
    const place = { round: 0 };
    this.place = place;
    this.#unwatch.push(() => this.#connection.leave(place));
  }

  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  watch(signal: AbortSignal | undefined): void {
    // A suspended run has no request that would hold Node alive or reject when the sidecar dies.
    this.#unwatch.push(this.#connection.hold());
    this.#unwatch.push(this.#connection.onFailure((error) => this.#fail(error)));
    if (signal === undefined) return;
    const onAbort = (): void => this.#stop(cancelled(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    this.#unwatch.push(() => signal.removeEventListener('abort', onAbort));
  }

  /** Sends an execute and takes its answer; or a resume: with the call that it answers, and what may answer for it when it cannot be sent. */
  send(request: (onId: (id: number) => void) => Promise<ExecutionResult>, resumed?: Resumed): void {
    let requestId = 0;
    const answered = request((id) => {
      // A handler that was compiled again is sent a second time, as another request.
      this.#inFlight.delete(requestId);
      requestId = id;
      this.#inFlight.add(id);
    });
    answered.then(
      (result) => {
        this.#inFlight.delete(requestId);
        this.#take(result, resumed?.suspension);
      },
      (error: unknown) => {
        this.#inFlight.delete(requestId);
        if (this.#finished || resumed?.onRefused(error) === true) return;
        this.#fail(error);
      },
    );
  }

  #take(result: ExecutionResult, answered: string | undefined): void {
    if (this.#finished) return;
    if (answered !== undefined && result.seq === 0) return this.#refused(result);
    if (result.seq === this.#segments.length) this.#deliver(result, answered);
    else this.#early.set(result.seq, { result, answered });
    for (let next; !this.#finished && (next = this.#early.get(this.#segments.length)) !== undefined; ) {
      this.#early.delete(next.result.seq);
      this.#deliver(next.result, next.answered);
    }
    this.#expectMore();
  }

  /** A resume was answered without a segment of the execution. */
  #refused(result: ExecutionResult): void {
    const { error } = result;
    // The execution ended before this resume got there. Its end is in another answer; without one, it expired.
    if (error?.code === 'SUSPENSION_ERROR' && this.#inFlight.size > 0) return;
    const left = error?.code === 'SUSPENSION_ERROR' ? undefined : this.#calls.oldest;
    if (left !== undefined) cancelOn(this.#connection, { suspension: left.suspensionId }).catch(() => undefined);
    this.#fail(error ?? new NexusError('PROTOCOL_ERROR', 'a resume was answered with segment 0'));
  }

  #expectMore(): void {
    if (!this.#finished && this.#early.size > 0 && this.#inFlight.size === 0) {
      this.#fail(new NexusError('PROTOCOL_ERROR', `segment ${this.#segments.length} of the execution is missing`));
    }
  }

  #deliver(result: ExecutionResult, answered: string | undefined): void {
    const { seq, status, stateMutations, events, viewCommands, logs, suspensions, metrics } = result;
    const segment: Segment = { seq, status, stateMutations, events, viewCommands, logs, suspensions, metrics };
    if (result.stateVersion !== undefined) segment.stateVersion = result.stateVersion;
    if (result.warnings !== undefined) segment.warnings = result.warnings;
    if (status === 'suspended') this.#calls.segment(segment, answered);
    this.#segments.push(segment);
    this.#notify(segment);
    if (result.error !== undefined) this.#fail(result.error);
    else if (status === 'success') this.#succeed(result);
    else if (this.#calls.size === 0) this.#fail(new NexusError('PROTOCOL_ERROR', 'the execution is suspended, and no call waits'));
    else if (this.#stopped !== undefined) this.#cancelSuspended();
    else for (const suspension of suspensions) void this.#call(suspension);
  }

  #notify(segment: Segment): void {
    if (this.#onSegment === undefined) return;
    try {
      const delivery = this.#onSegment(segment);
      if (!isThenable(delivery)) return;
      this.#deliveries.push(delivery);
      delivery.then(undefined, (error: unknown) => this.#stop(error));
    } catch (error) {
      this.#stop(error);
    }
  }

  async #call(suspension: Suspension): Promise<void> {
    let outcome: Outcome;
    try {
      outcome = { value: plain(await this.#invoke(suspension)) };
    } catch (error) {
      outcome = { error: toExtensionError(error) };
    }
    this.#resume(suspension.suspensionId, outcome);
  }

  #invoke({ extensionName, method, args }: Suspension): unknown {
    const extension = own(this.#extensions, extensionName);
    if (typeof extension !== 'object' || extension === null) {
      throw missing('EXTENSION_NOT_FOUND', `extension '${extensionName}' not found`);
    }
    const call = own(extension, method);
    if (typeof call !== 'function') {
      throw missing('METHOD_NOT_FOUND', `method '${method}' not found on extension '${extensionName}'`);
    }
    return Reflect.apply(call, extension, args) as unknown;
  }

  #resume(suspensionId: string, outcome: Outcome): void {
    if (this.#finished || this.#stopped !== undefined) return;
    this.send(
      (onId) => resumeOn(this.#connection, suspensionId, outcome, readPlainResult, { onId }),
      {
        suspension: suspensionId,
        onRefused: (error) => {
          // A value that cannot be sent is the extension's fault: its call fails in the handler, which may catch it.
          if ('error' in outcome || this.#connection.failure !== undefined) return false;
          this.#resume(suspensionId, { error: toExtensionError(error) });
          return true;
        },
      },
    );
  }

  /** Ends the execution from outside. The run settles when the sidecar has said what became of it, effects included. */
  #stop(error: unknown): void {
    if (this.#finished || this.#stopped !== undefined) return;
    this.#stopped = { error };
    const withdrawn = new NexusError('CANCELLED', 'the run was aborted');
    for (const request of [...this.#inFlight]) {
      if (this.#connection.withdraw(request, withdrawn)) continue;
      cancelOn(this.#connection, { request }).catch(() => undefined);
    }
    // A sidecar that is still starting may take its time to answer; the cancel follows the request.
    if (this.#connection.info === undefined) return this.#fail(error);
    if (this.#inFlight.size === 0 && this.#segments.at(-1)?.status === 'suspended') this.#cancelSuspended();
  }

  #cancelSuspended(): void {
    // Other requests in flight bring the end of the execution themselves.
    const suspension = this.#calls.oldest?.suspensionId;
    if (suspension === undefined || this.#inFlight.size > 0) return;
    const settle = (): void => this.#fail(this.#stopped?.error);
    cancelOn(this.#connection, { suspension }).then(settle, settle);
  }

  #succeed(result: ExecutionResult): void {
    if (this.#stopped !== undefined) return this.#fail(this.#stopped.error);
    this.#finish();
    const run: RunResult = {
      value: result.returnValue,
      stateMutations: [],
      events: [],
      viewCommands: [],
      logs: [],
      segments: this.#segments,
      metrics: result.metrics,
    };
    if (result.stateVersion !== undefined) run.stateVersion = result.stateVersion;
    for (const segment of this.#segments) {
      append(run.stateMutations, segment.stateMutations);
      append(run.events, segment.events);
      append(run.viewCommands, segment.viewCommands);
      append(run.logs, segment.logs);
    }
    if (this.#deliveries.length === 0) return this.#promise.resolve(run);
    Promise.all(this.#deliveries).then(
      () => this.#promise.resolve(run),
      (error: unknown) => this.#promise.reject(error),
    );
  }

  #fail(error: unknown): void {
    if (this.#finished) return;
    this.#finish();
    if (this.#stopped !== undefined) return this.#promise.reject(this.#stopped.error);
    // Who repeats the run would have its effects, and its calls, twice.
    this.#promise.reject(this.#segments.length > 0 && error instanceof NexusError ? midway(error) : error);
  }

  #finish(): void {
    this.#finished = true;
    for (const unwatch of this.#unwatch) unwatch();
    this.#early.clear();
  }
}

/** A Buffer that an extension returns (of a file, say) is bytes; only a context's is MessagePack. */
function plain(value: unknown): unknown {
  return Buffer.isBuffer(value) ? new Uint8Array(value.buffer, value.byteOffset, value.length) : value;
}

/** Not `push(...items)`: that puts them all on the stack. */
function append<Item>(list: Item[], items: readonly Item[]): void {
  for (const item of items) list.push(item);
}

function own(target: object, key: string): unknown {
  return Object.hasOwn(target, key) ? (target as Record<string, unknown>)[key] : undefined;
}

function missing(code: string, message: string): ExtensionError {
  return { message, name: 'Error', code };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function';
}

function cancelled(signal: AbortSignal): NexusError {
  return new NexusError('CANCELLED', 'the run was aborted', { cause: signal.reason });
}
