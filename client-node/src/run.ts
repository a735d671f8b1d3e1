/**
 * The whole loop of one handler: execute, deliver each segment, call extensions, resume, until it ends.
 *
 * Invariants: segments reach `onSegment` in the order of their `seq`, whatever order the answers arrive in; each suspension's
 * extension is called once and answered for once, at the latest after `suspensionTimeoutMs`; the promise settles once, whatever the
 * caller's functions do, and nothing that happens later (an extension that answers after the end) is an unhandled rejection. A handler reaches own properties of the
 * extensions only, never a prototype.
 */
import { checkSignal } from './abort.js';
import type { Answer } from './answers.js';
import { Calls } from './calls.js';
import type { Connection } from './connection.js';
import { cancelOn, executeOn, resumeOn, type Core } from './core.js';
import { answering, CallOrigin, CurrentCall } from './current.js';
import { abortError, NexusError, toExtensionError, type ExtensionError } from './errors.js';
import { registryOf } from './extensions.js';
import { Kind } from './kinds.js';
import { failure, happened, ThrownErrors } from './failures.js';
import { checkLossless } from './lossless.js';
import { checkOptions, checkPlain } from './names.js';
import { LONGEST_TIMER_MS, Patience } from './patience.js';
import { asPayload } from './payload.js';
import type { Place } from './places.js';
import { asOfNow } from './requests.js';
import { readLogs, readPlainResult } from './results.js';
import type {
  EmittedEvent,
  Extensions,
  Segment,
  ExecutionMetrics,
  ExecutionResult,
  HandlerContext,
  HandlerNote,
  LogRecord,
  StateMutation,
  Suspension,
  ViewCommand,
} from './types.js';

export type { ExtensionMethod, Extensions, ExtensionsOf, Segment } from './types.js';
import { checkHandle, checkLabels, checkSource, checkTimeout, CONTEXT_NAMES, contextFields, isLossless, type Outcome } from './validate.js';

export interface RunOptions<State extends object = Record<string, unknown>, Exts = Extensions>
  extends Omit<HandlerContext, 'extensionRegistry'> {
  /** Own properties only: `{ http: { get: async (url) => ... } }`. */
  extensions?: Exts;
  /**
   * What the handler gets of an error that an extension has thrown: an Error, or `{message, name?, code?}`; undefined: its message, name
   * and code. The run's own error, where the handler lets it through, has what was thrown as `cause` in any case where it is known.
   */
  onExtensionError?: (error: unknown, call: CurrentCall) => unknown;
  /** Of the caller's own, for `currentCall()` in its extensions. */
  labels?: Readonly<Record<string, string>>;
  /**
   * Called at once for every segment, the last one included. What it throws ends the run and is thrown by it. A promise is waited for: once
   * the handler has returned, for `timeoutMs` or else the sidecar's `suspensionTimeoutMs` at most, then the run ends with TIMEOUT.
   */
  onSegment?: (segment: Segment<State>) => unknown;
  /**
   * Called for every record that the handler logs, in order, while it runs: at most 50 ms after the last time, and with all that is left
   * before `onSegment` has the segment (whose `logs` have the records too). What it throws ends the run and is thrown by it; a promise is
   * waited for as that of `onSegment` is.
   */
  onLog?: (record: LogRecord) => unknown;
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
  /** What the handler's author should know of its text. Absent: nothing. */
  warnings?: HandlerNote[];
  /** Limits that count although the call has asked for wider ones (`timeoutMs` too). Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

const OPTIONS = new Set<string>([
  ...CONTEXT_NAMES.filter((name) => name !== 'extensionRegistry'),
  ...['extensions', 'onExtensionError', 'labels', 'onSegment', 'onLog', 'signal', 'timeoutMs'],
]);

export async function runHandler(core: Core, code: string | Uint8Array, given: RunOptions): Promise<RunResult> {
  const options = checkOptions('what is given as options', 'option of `run`', given, OPTIONS);
  const { extensions = {} } = options;
  checkPlain('`extensions`', extensions);
  const labels = options.labels === undefined ? undefined : checkLabels(options.labels);
  for (const name of ['onSegment', 'onLog', 'onExtensionError'] as const) {
    if (options[name] !== undefined && typeof options[name] !== 'function') {
      throw new NexusError('INVALID_ARGUMENT', `\`${name}\` is not a function`);
    }
  }
  const signal = checkSignal(options);
  const registry = registryOf(extensions, options.capabilities);
  const fields = contextFields(options, checkTimeout(options.timeoutMs), registry);
  const request = code instanceof Uint8Array ? asOfNow(fields) : fields;
  // Who hands over an extension means it to be called. A list, and be it empty, says exactly what is granted.
  request.capabilities ??= Object.keys(registry).map((name) => `ext:${name}`);
  if (code instanceof Uint8Array) checkHandle(code);
  else request.source = checkSource(code);
  if (options.onLog !== undefined) request.streamLogs = true;
  if (signal?.aborted === true) throw cancelled(signal);
  const connection = core.connection();
  return new Promise<RunResult>((resolve, reject) => {
    const run = new Run(connection, options, { resolve, reject }, labels);
    if (Object.keys(extensions).length > 0) run.needsPlace();
    run.watch(signal);
    const { place } = run;
    run.send((onId) => {
      const { onPart } = run;
      if (!(code instanceof Uint8Array)) return executeOn(connection, request, readPlainResult, { onId, onPart, place });
      return core.withHandle(code, (handler) => {
        if (run.stopped) return Promise.reject(new NexusError('CANCELLED', 'the run was aborted'));
        return executeOn(connection, { ...request, handler }, readPlainResult, { onId, onPart, place });
      });
    });
  });
}

/** The rest of a loop whose execute was part of another request: `first` is its answer, `place` where it is suspended. */
export function goOn(
  connection: Connection,
  first: ExecutionResult,
  options: RunOptions,
  place: Place | undefined,
  signal: AbortSignal | undefined,
): Promise<RunResult> {
  return new Promise<RunResult>((resolve, reject) => {
    const run = new Run(connection, options, { resolve, reject });
    run.place = place;
    run.watch(signal);
    run.begun(first);
  });
}

/** What is told of a segment, without what is told of the run. */
export function segmentOf(result: ExecutionResult): Segment {
  const { seq, status, stateMutations, events, viewCommands, logs, suspensions, metrics } = result;
  const segment: Segment = { seq, status, stateMutations, events, viewCommands, logs, suspensions, metrics };
  if (result.stateVersion !== undefined) segment.stateVersion = result.stateVersion;
  if (result.warnings !== undefined) segment.warnings = result.warnings;
  if (result.limited !== undefined) segment.limited = result.limited;
  return segment;
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

/** `delivering`: the handler has returned, and what `onSegment` returned is waited for. */
type Phase = 'running' | 'delivering' | 'over';

class Run {
  readonly #connection: Connection;
  readonly #extensions: Extensions;
  readonly #onSegment: RunOptions['onSegment'];
  readonly #onLog: RunOptions['onLog'];
  readonly #onExtensionError: RunOptions['onExtensionError'];
  readonly #origin: CallOrigin;
  readonly #isLossless: boolean;
  readonly #promise: Settle;

  readonly #segments: Segment[] = [];
  /** Records that came before an answer, by its request; the first `told` of them were handed on. */
  #heard: Map<number, { records: LogRecord[]; told: number }> | undefined;
  /** Takes what comes before an answer; undefined where nobody has asked for it. */
  readonly onPart: ((answer: Answer) => boolean) | undefined;
  /** Results that came before one with a lower seq. */
  readonly #early = new Map<number, { result: ExecutionResult; answered: string | undefined; request: number }>();
  readonly #calls = new Calls<unknown[]>();
  /** For extensions that are at work. */
  #patience: Patience | undefined;
  /** What the handler was told of the last call that was late. */
  #late: ExtensionError | undefined;
  readonly #thrown = new ThrownErrors();
  /** Ids of requests that are unanswered. */
  readonly #inFlight = new Set<number>();
  /** What `onSegment` and `onLog` returned, when that were promises. */
  readonly #deliveries: PromiseLike<unknown>[] = [];
  /** Why the run is being ended from outside, once it is. */
  #stopped: { error: unknown; isOurs: boolean } | undefined;
  #phase: Phase = 'running';
  /** Ends what is waited for behind the handler's end. */
  #deliveryTimer: NodeJS.Timeout | undefined;
  readonly #timeoutMs: number | undefined;
  readonly #unwatch: (() => void)[] = [];
  /** Where it may be suspended. */
  place: Place | undefined;

  constructor(connection: Connection, options: RunOptions, promise: Settle, labels = options.labels) {
    const { extensions = {}, onSegment, onLog, onExtensionError, handlerName, panelId, timeoutMs } = options;
    this.#connection = connection;
    this.#extensions = extensions;
    this.#onSegment = onSegment;
    this.#onLog = onLog;
    this.onPart = onLog === undefined ? undefined : (answer) => this.#hear(answer);
    this.#onExtensionError = onExtensionError;
    this.#origin = new CallOrigin(handlerName, panelId, labels ?? {});
    this.#isLossless = isLossless(options);
    this.#promise = promise;
    this.#timeoutMs = timeoutMs;
  }

  needsPlace(): void {
    this.place = { round: 0 };
  }

  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  watch(signal: AbortSignal | undefined): void {
    // A suspended run has no request that would hold Node alive or reject when the sidecar dies.
    this.#unwatch.push(this.#connection.hold());
    this.#unwatch.push(this.#connection.onFailure((error) => this.#fail(error)));
    if (signal === undefined) return;
    const onAbort = (): void => this.#stop(cancelled(signal), true);
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
        this.#take(result, resumed?.suspension, requestId);
      },
      (error: unknown) => {
        this.#inFlight.delete(requestId);
        if (this.#phase !== 'running' || resumed?.onRefused(error) === true) return;
        this.#fail(error);
      },
    );
  }

  /** Takes the answer to an execute that somebody else has sent. */
  begun(result: ExecutionResult): void {
    this.#take(result, undefined, 0);
  }

  #take(result: ExecutionResult, answered: string | undefined, request: number): void {
    if (this.#phase !== 'running') return;
    if (answered !== undefined && result.seq === 0) return this.#refused(result);
    if (result.seq === this.#segments.length) this.#deliver(result, answered, request);
    else this.#early.set(result.seq, { result, answered, request });
    for (let next; this.#phase === 'running' && (next = this.#early.get(this.#segments.length)) !== undefined; ) {
      this.#early.delete(next.result.seq);
      this.#deliver(next.result, next.answered, next.request);
    }
    this.#expectMore();
  }

  /** A resume was answered without a segment of the execution. */
  #refused(result: ExecutionResult): void {
    const { error } = result;
    // The execution ended before this resume got there. Its end is in another answer; without one, it expired.
    if (error?.code === 'SUSPENSION_ERROR' && this.#inFlight.size > 0) return;
    if (error?.code === 'SUSPENSION_ERROR' && this.#late !== undefined) {
      const message = `${this.#late.message}, and the sidecar has dropped the execution`;
      return this.#fail(new NexusError('SUSPENSION_ERROR', message));
    }
    const left = error?.code === 'SUSPENSION_ERROR' ? undefined : this.#calls.oldest;
    if (left !== undefined) cancelOn(this.#connection, { suspension: left.suspensionId }).catch(() => undefined);
    this.#fail(error ?? new NexusError('PROTOCOL_ERROR', 'a resume was answered with segment 0'));
  }

  #expectMore(): void {
    if (this.#phase === 'running' && this.#early.size > 0 && this.#inFlight.size === 0) {
      this.#fail(new NexusError('PROTOCOL_ERROR', `segment ${this.#segments.length} of the execution is missing`));
    }
  }

  #deliver(result: ExecutionResult, answered: string | undefined, request: number): void {
    const { status, suspensions } = result;
    const segment = segmentOf(result);
    if (this.#onLog !== undefined) this.#tellRest(segment, request);
    if (status === 'suspended') this.#calls.segment(segment, answered);
    this.#segments.push(segment);
    this.#notify(segment);
    if (result.error !== undefined) this.#fail(result.error);
    else if (status === 'success') this.#succeed(result);
    else if (this.#calls.size === 0) this.#fail(new NexusError('PROTOCOL_ERROR', 'the execution is suspended, and no call waits'));
    else if (this.#stopped !== undefined) this.#cancelSuspended();
    else for (const suspension of suspensions) void this.#call(suspension);
  }

  #hear({ kind, id, fields }: Answer): boolean {
    if (kind !== Kind.logs) return false;
    this.#heard ??= new Map();
    const heard = this.#heard.get(id) ?? { records: [], told: 0 };
    this.#heard.set(id, heard);
    for (const record of readLogs(fields)) heard.records.push(record);
    // With others unanswered, what the segment before has logged may still come.
    if (this.#inFlight.size !== 1) return true;
    const news = heard.records.slice(heard.told);
    heard.told = heard.records.length;
    this.#tellLogs(news);
    return true;
  }

  /** What of a segment was not handed on while it ran. */
  #tellRest(segment: Segment, request: number): void {
    const { records, told } = this.#heard?.get(request) ?? { records: [], told: 0 };
    this.#heard?.delete(request);
    segment.logs = records.concat(segment.logs);
    this.#tellLogs(segment.logs.slice(told));
  }

  #tellLogs(records: readonly LogRecord[]): void {
    if (this.#onLog === undefined) return;
    for (const record of records) {
      if (this.#phase !== 'running' || this.#stopped?.isOurs === false) return;
      try {
        const told = this.#onLog(record);
        if (!isThenable(told)) continue;
        this.#deliveries.push(told);
        told.then(() => undefined, (error: unknown) => this.#stop(error, false));
      } catch (error) {
        this.#stop(error, false);
      }
    }
  }

  #notify(segment: Segment): void {
    if (this.#onSegment === undefined) return;
    try {
      const delivery = this.#onSegment(segment);
      if (!isThenable(delivery)) return;
      this.#deliveries.push(delivery);
      // with two functions, as `await` calls it: a thenable may take both for granted
      delivery.then(() => undefined, (error: unknown) => this.#stop(error, false));
    } catch (error) {
      this.#stop(error, false);
    }
  }

  async #call(suspension: Suspension): Promise<void> {
    const { suspensionTimeoutMs = 0 } = this.#connection.info?.limits ?? {};
    const call = new CurrentCall(suspension, this.#origin, suspensionTimeoutMs);
    this.#patience ??= new Patience(suspensionTimeoutMs, (late) => this.#isLate(late, suspensionTimeoutMs));
    this.#patience.begin(call);
    let outcome: Outcome;
    try {
      const value = await answering(call, () => this.#invoke(suspension));
      if (this.#isLossless) checkLossless(`${call.extensionName}.${call.method}()`, value);
      outcome = { value: asPayload(value) };
    } catch (error) {
      outcome = { error: await this.#seenByHandler(error, call) };
    }
    if (!this.#patience.end(call)) return;
    this.#resume(suspension.suspensionId, outcome);
  }

  #isLate(call: CurrentCall, ms: number): void {
    const message = `$ext.${call.extensionName}.${call.method}() was not answered within suspensionTimeoutMs (${ms} ms)`;
    this.#late = { message, name: 'Error', code: 'TIMEOUT' };
    call.end(new NexusError('TIMEOUT', message));
    this.#resume(call.suspensionId, { error: this.#late });
  }

  /** What was thrown in an extension stays here, as the cause of what the handler gets. */
  async #seenByHandler(thrown: unknown, call: CurrentCall): Promise<ExtensionError> {
    let error = toExtensionError(thrown);
    try {
      const chosen = await this.#onExtensionError?.(thrown, call);
      if (chosen !== undefined) error = toExtensionError(chosen);
    } catch (failed) {
      error = toExtensionError(failed);
    }
    const { extensionName, method } = call;
    this.#thrown.add(extensionName, method, error.message, thrown);
    return error;
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
    if (this.#phase !== 'running' || this.#stopped !== undefined) return;
    this.send(
      (onId) => resumeOn(this.#connection, suspensionId, outcome, readPlainResult, { onId, onPart: this.onPart }),
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
  #stop(error: unknown, isOurs: boolean): void {
    if (this.#phase === 'over' || this.#stopped !== undefined) return;
    this.#stopped = { error, isOurs };
    if (this.#phase === 'delivering') return this.#fail(error);
    for (const call of this.#patience?.stop() ?? []) call.end(error);
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
    this.#leave(undefined);
    const run: RunResult = { ...happened(this.#segments), value: result.returnValue, metrics: result.metrics };
    const settle = (): void => {
      if (this.#phase === 'over') return;
      this.#finish();
      this.#promise.resolve(run);
    };
    if (this.#deliveries.length === 0) return settle();
    this.#phase = 'delivering';
    this.#limitDeliveries();
    // One that rejects ends the run where it was taken (`#notify`).
    Promise.all(this.#deliveries).then(settle, () => undefined);
  }

  /** The caller's own functions get no more time than the caller gave the handler, or than an extension has. */
  #limitDeliveries(): void {
    const ms = this.#timeoutMs || (this.#connection.info?.limits['suspensionTimeoutMs'] ?? 0);
    if (ms === 0) return;
    this.#deliveryTimer = setTimeout(() => {
      this.#stop(new NexusError('TIMEOUT', `the handler has returned, and what onSegment or onLog returned did not settle within ${ms} ms`), true);
    }, Math.min(ms, LONGEST_TIMER_MS));
  }

  #fail(error: unknown): void {
    if (this.#phase === 'over') return;
    const { error: why, isOurs } = this.#stopped ?? { error, isOurs: true };
    // What the caller's own function threw is thrown by `run` as it is.
    const reason = isOurs ? failure(why, this.#segments, this.#thrown) : why;
    this.#leave(reason);
    this.#finish();
    this.#promise.reject(reason);
  }

  /** The sidecar has no part in it any more. `reason`: of the end; undefined: the handler has returned. */
  #leave(reason: unknown): void {
    for (const call of this.#patience?.stop() ?? []) call.end(reason ?? new NexusError('CANCELLED', 'the run is over'));
    if (this.place !== undefined) this.#connection.leave(this.place);
    this.place = undefined;
    this.#early.clear();
  }

  #finish(): void {
    this.#phase = 'over';
    clearTimeout(this.#deliveryTimer);
    for (const unwatch of this.#unwatch) unwatch();
  }
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
  return abortError('the run was aborted', signal);
}
