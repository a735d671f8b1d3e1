/**
 * The operations of the protocol on whichever sidecar is there, with the mode of the result (plain or Buffers) chosen by the
 * caller. NexusRuntime, `run` and the dialects are thin layers over this.
 */
import { abortable, type CancelTarget } from './abort.js';
import { checkConfig, type RuntimeConfig } from './config.js';
import type { Connection, RequestOptions } from './connection.js';
import { NexusError } from './errors.js';
import type { Fields } from './fields.js';
import { Handles } from './handles.js';
import { tellLimited } from './limited.js';
import { Link } from './link.js';
import { Kind } from './kinds.js';
import { readExecutionList, readHandlerCheck, type ExecutionList } from './maps.js';
import { asOfNow, writeExecute, writeRequest, writeResume, writeResumeError, type ExecuteRequest } from './requests.js';
import { string, boolean } from './typed.js';
import { checkUse, createState, type ResidentState } from './resident.js';
import { readHandle, readStats } from './results.js';
import { Suspended, type NoteResult, type ReadResult, type Segment } from './suspended.js';
import type { RuntimeStats } from './statistics.js';
import type { HandlerCheck, SuspendMode } from './types.js';
import { checkHandle, checkSource, checkSuspensionId, type Outcome } from './validate.js';

export class Core {
  readonly #link: Link;
  readonly #handles = new Handles();
  readonly #suspended = new Suspended();

  constructor(config: RuntimeConfig) {
    this.#link = new Link(checkConfig(config));
  }

  /** A connection to make requests on; starts a sidecar when there is none. Throws when there can be none. */
  connection(): Connection {
    return this.#link.connection();
  }

  /** The connection when a sidecar has been asked for something already: for what must not start one. */
  existing(): Connection | undefined {
    return this.#link.existing();
  }

  async createState<State extends object>(state: unknown): Promise<ResidentState<State>> {
    return createState<State>(this.#link.connection(), state);
  }

  execute<Result extends Segment>(request: ExecuteRequest, read: ReadResult<Result>, signal?: AbortSignal): Promise<Result> {
    const connection = this.#link.connection();
    const note: ReadResult<Result> = (fields) => this.#suspended.begun(connection, fields, read);
    const end = (target: CancelTarget): void => this.#cancelOn(connection, target);
    return abortable(connection, signal, undefined, end, (options) => executeOn(connection, request, note, options));
  }

  /** Compiles again, once, when the sidecar says that it does not know the handle (SPEC 4, INVALID_HANDLER). */
  executeCompiled<Result extends Segment>(
    handle: Uint8Array,
    request: ExecuteRequest,
    read: ReadResult<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    const now = asOfNow(request);
    return this.withHandle(handle, (handler) => this.execute({ ...now, handler }, read, signal));
  }

  /** `execute` with the handle that the present sidecar knows; a second time when it turns out that it does not. */
  async withHandle<Result extends { error?: NexusError }>(
    handle: Uint8Array,
    execute: (handler: Uint8Array) => Promise<Result>,
  ): Promise<Result> {
    const sent = this.#handles.current(checkHandle(handle));
    let failure: NexusError;
    let result: Result | undefined;
    try {
      result = await execute(sent);
      if (!isUnknownHandle(result.error)) return result;
      failure = result.error;
    } catch (error) {
      if (!isUnknownHandle(error)) throw error;
      failure = error;
    }
    const entry = this.#handles.find(handle);
    if (entry === undefined) {
      if (result !== undefined) return result;
      throw failure;
    }
    // Another execution may have replaced it while this one was on its way.
    const handler = entry.current !== sent ? entry.current : await this.#recompile(entry);
    return execute(handler);
  }

  /** What stands for a handle with the present sidecar. */
  currentHandle(handle: Uint8Array): Uint8Array {
    return this.#handles.current(handle);
  }

  #recompile(entry: NonNullable<ReturnType<Handles['find']>>): Promise<Uint8Array> {
    entry.recompiling ??= this.#compile(entry.source, entry.suspendMode)
      .then((handle) => {
        this.#handles.replace(entry, handle);
        return handle;
      })
      .finally(() => {
        delete entry.recompiling;
      });
    return entry.recompiling;
  }

  async precompile(source: string, suspendMode?: SuspendMode): Promise<Buffer> {
    const handle = await this.#compile(checkSource(source), suspendMode);
    this.#handles.remember(handle, source, suspendMode);
    return handle;
  }

  /** Of a handle that was made here, and not too long ago. */
  sourceOf(handle: Uint8Array): string | undefined {
    return this.#handles.find(handle)?.source;
  }

  #compile(source: string, suspendMode: SuspendMode | undefined): Promise<Buffer> {
    return this.#ask(Kind.precompile, { source, suspendMode }, Kind.compiled, readHandle);
  }

  resume<Result extends Segment>(
    suspension: string,
    outcome: Outcome,
    read: ReadResult<Result>,
    signal?: AbortSignal,
  ): Promise<Result> {
    checkSuspensionId(suspension);
    const present = this.#link.existing();
    const send = (connection: Connection, note: NoteResult<Result>): Promise<Result> => {
      const end = (target: CancelTarget): void => this.#cancelOn(connection, target);
      return abortable(connection, signal, suspension, end, (options) => resumeOn(connection, suspension, outcome, note, options));
    };
    return this.#suspended.resumed(suspension, present, read, (note) => send(this.#link.connection(), note));
  }

  /** Without waiting for what becomes of it. */
  #cancelOn(connection: Connection, target: CancelTarget): void {
    if ('suspension' in target) this.#suspended.cancelled(target.suspension, connection);
    cancelOn(connection, target).catch(() => undefined);
  }

  /** Whether a resume of this suspension answers in Buffers, as its execution does. */
  resumesInBuffers(suspension: string): boolean {
    return this.#suspended.inBuffers(suspension);
  }

  cancel(suspension: string): Promise<boolean> {
    checkSuspensionId(suspension);
    this.#suspended.cancelled(suspension, this.#link.existing());
    return cancelOn(this.#link.connection(), { suspension });
  }

  check(source: string): Promise<HandlerCheck> {
    return this.#ask(Kind.check, { source: checkSource(source) }, Kind.checked, readHandlerCheck);
  }

  /** Asked for when the sidecar is busy, above all: it does not wait behind executions. */
  stats(options?: RequestOptions): Promise<RuntimeStats> {
    return this.#ask(Kind.stats, {}, Kind.statsAnswer, readStats, { urgent: true, ...options });
  }

  executions(): Promise<ExecutionList> {
    return this.#ask(Kind.executions, {}, Kind.executionsAnswer, readExecutionList, { urgent: true });
  }

  kill(execution: number): Promise<boolean> {
    if (!Number.isSafeInteger(execution) || execution < 0) throw new NexusError('INVALID_ARGUMENT', 'the id of an execution is a whole number');
    return this.#ask(Kind.kill, { execution }, Kind.done, (fields) => boolean(fields, 'cancelled'), { urgent: true });
  }

  metrics(options?: RequestOptions): Promise<string> {
    const read = (fields: Record<string, unknown>): string => string(fields, 'text');
    return this.#ask(Kind.metrics, {}, Kind.metricsAnswer, read, { urgent: true, ...options });
  }

  ping(options?: RequestOptions): Promise<void> {
    return this.#ask(Kind.ping, {}, Kind.pong, () => undefined, { urgent: true, ...options });
  }

  shutdown(): Promise<void> {
    return this.#link.shutdown();
  }

  #ask<T>(
    kind: number,
    fields: Fields,
    expect: number,
    read: (fields: Record<string, unknown>) => T,
    options?: RequestOptions,
  ): Promise<T> {
    return this.#link.connection().request(expect, (writer, id) => writeRequest(writer, id, kind, fields), read, options);
  }
}

export function executeOn<Result extends object>(
  connection: Connection,
  request: ExecuteRequest,
  read: ReadResult<Result>,
  options?: RequestOptions,
): Promise<Result> {
  checkUse(request.resident, connection);
  const asks = request.timeoutMs !== undefined || request.limits !== undefined;
  const note: NoteResult<Result> = !asks
    ? read
    : (fields) => {
        const result = read(fields);
        tellLimited(result, request, connection.info?.limits ?? {});
        return result;
      };
  return connection.request(Kind.result, (writer, id) => writeExecute(writer, id, request, connection.arena), note, options);
}

export function resumeOn<Result>(
  connection: Connection,
  suspension: string,
  outcome: Outcome,
  read: NoteResult<Result>,
  options?: RequestOptions,
): Promise<Result> {
  return connection.request(
    Kind.result,
    (writer, id) =>
      'error' in outcome
        ? writeResumeError(writer, id, suspension, outcome.error)
        : writeResume(writer, id, suspension, outcome.value, connection.arena),
    read,
    { ...options, continues: true },
  );
}

export function cancelOn(connection: Connection, target: CancelTarget): Promise<boolean> {
  return connection.request(
    Kind.done,
    (writer, id) => writeRequest(writer, id, Kind.cancel, target),
    (fields) => boolean(fields, 'cancelled'),
    { urgent: true },
  );
}

export function isUnknownHandle(error: unknown): error is NexusError {
  return error instanceof NexusError && error.code === 'INVALID_HANDLER' && error.context?.['reason'] === 'unknown';
}
