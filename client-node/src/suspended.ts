/**
 * Suspended executions: which connection holds each, which of its calls are outstanding, and in which form its results come.
 *
 * Invariants: a suspension dies with its sidecar, its id is never sent to the next one. Results of one execution are handed out in
 * the order of their `seq`, whatever order the answers come in, each with the calls that are outstanding after it; one that came too
 * early waits for those before it, and no longer than requests of its execution are unanswered. Bounded in number, bytes and time:
 * an execution that was still for longer than the sidecar keeps it, or the stillest one where there are too many, loses its list;
 * what comes of it then names new calls only. An id that is not known here is the sidecar's to judge.
 */
import { Calls } from './calls.js';
import { Held, type Connection } from './connection.js';
import { NexusError } from './errors.js';
import { MAX_HELD_CALL_BYTES, MAX_HELD_SUSPENSIONS, PLACES_EXPIRE_MS } from './limits.js';
import { suspensionGoneMs } from './places.js';
import { Bin, MalformedError } from './reader.js';
import type { Suspension } from './types.js';

/** What plain and Buffer results have in common. */
export interface Segment {
  status: string;
  seq: number;
  suspension?: Suspension<unknown>;
  suspensions: Suspension<unknown>[];
  error?: NexusError;
}

type Fields = Record<string, unknown>;
/** `readPlainResult` or `readBufferResult`. */
export type ReadResult<Result> = (fields: Fields) => Result;
/** As `ReadResult`, for a result that may have to wait for another. */
export type NoteResult<Result> = (fields: Fields) => Result | Held<Result>;

/** How often it is looked, by the time that lists are kept. */
const LOOKS = 4;

class Execution {
  /** Of the connection: not the connection itself, whose buffers would live on. */
  readonly serial: number;
  readonly inBuffers: boolean;
  readonly keptMs: number;
  /** Undefined: it is over, or its list was given up. */
  calls: Calls | undefined = new Calls();
  /** Of calls that wait, where there is no list. */
  ids: string[] = [];
  over = false;
  /** Of the arguments of its calls. */
  bytes = 0;
  /** `seq` of the segment that comes next. */
  next = 0;
  /** Resumes without an answer. */
  unanswered = 0;
  /** Segments that came before one with a lower `seq`, by their own. */
  readonly early = new Map<number, () => void>();
  /** Calls of the list that the sidecar did not know when they were answered. */
  readonly unknown: string[] = [];
  touched = 0;

  constructor(serial: number, inBuffers: boolean, keptMs: number) {
    this.serial = serial;
    this.inBuffers = inBuffers;
    this.keptMs = keptMs;
  }
}

export class Suspended {
  readonly #byCall = new Map<string, Execution>();
  /** Those with a list, the stillest first. */
  readonly #listed = new Set<Execution>();
  /** Those without. */
  readonly #unlisted = new Set<Execution>();
  /** Of all lists. */
  #bytes = 0;
  readonly #watched = new Set<number>();
  #timer: NodeJS.Timeout | undefined;

  /** The first result of an execution. */
  begun<Result extends Segment>(connection: Connection, fields: Fields, read: ReadResult<Result>): Result {
    const result = read(fields);
    if (result.status !== 'suspended') return result;
    this.#watch(connection);
    const { suspensionTimeoutMs = PLACES_EXPIRE_MS } = connection.info?.limits ?? {};
    const keptMs = suspensionGoneMs(suspensionTimeoutMs);
    const execution = new Execution(connection.serial, Buffer.isBuffer(result.suspensions[0]?.args), keptMs);
    this.#segment(execution, undefined, result, callBytes(fields));
    this.#bound();
    return result;
  }

  /**
   * Goes on with an execution: `send` makes the request, and gives its answer's fields to what it is called with. Throws when the
   * sidecar that held the execution is not the present one.
   */
  resumed<Result extends Segment>(
    suspension: string,
    present: Connection | undefined,
    read: ReadResult<Result>,
    send: (note: NoteResult<Result>) => Promise<Result>,
  ): Promise<Result> {
    const execution = this.#find(suspension, present);
    if (execution === undefined) return send(read);
    execution.unanswered++;
    let answered = false;
    const done = (): void => {
      if (answered) return;
      answered = true;
      execution.unanswered--;
      this.#settle(execution);
    };
    const sent = send((fields) => {
      const result = read(fields);
      return new Held(({ resolve, reject }) => {
        this.#note(execution, result, () => {
          try {
            this.#segment(execution, suspension, result, callBytes(fields));
            resolve(result);
          } catch (error) {
            reject(error as Error);
          }
        }, suspension);
        done();
      });
    });
    // A request that fails brings no segment either.
    sent.catch(done);
    return sent;
  }

  /** The execution's context came in Buffers. */
  inBuffers(suspension: string): boolean {
    return this.#byCall.get(suspension)?.inBuffers === true;
  }

  /** The execution is being cancelled. Throws when its sidecar is not the present one. */
  cancelled(suspension: string, present: Connection | undefined): void {
    const execution = this.#find(suspension, present);
    if (execution !== undefined) this.#end(execution);
  }

  #find(suspension: string, present: Connection | undefined): Execution | undefined {
    const execution = this.#byCall.get(suspension);
    if (execution === undefined || execution.serial === present?.serial) return execution;
    throw new NexusError('SUSPENSION_ERROR', 'the sidecar that held this execution has gone', {
      context: { reason: 'sidecar-gone' },
    });
  }

  /** The answer to a resume; `handOut` is called in its turn. */
  #note(execution: Execution, { seq, error }: Segment, handOut: () => void, answered: string): void {
    if (seq === 0) {
      // No segment of any execution (SPEC 3): the call waits as before, if the execution is still there.
      if (error?.code === 'SUSPENSION_ERROR') execution.unknown.push(answered);
      return handOut();
    }
    if (seq > execution.next && !execution.over) return void execution.early.set(seq, handOut);
    handOut();
    for (let next; (next = execution.early.get(execution.next)) !== undefined; ) next();
  }

  /** A segment in its turn. */
  #segment(execution: Execution, answered: string | undefined, result: Segment, bytes: number): void {
    if (result.seq === 0 && answered !== undefined) return;
    execution.early.delete(result.seq);
    execution.next = Math.max(execution.next, result.seq + 1);
    if (result.status !== 'suspended') return this.#end(execution);
    if (execution.over) return;
    const { calls } = execution;
    const made = result.suspensions;
    if (answered !== undefined) this.#byCall.delete(answered);
    for (const { suspensionId } of made) this.#byCall.set(suspensionId, execution);
    if (calls === undefined) {
      for (const { suspensionId } of made) execution.ids.push(suspensionId);
      return;
    }
    calls.segment(result, answered);
    const { oldest } = calls;
    if (oldest === undefined) throw new MalformedError('suspended without a suspension');
    result.suspension = oldest;
    // Where all are new, those before them have left the list.
    const listed = calls.size === made.length ? bytes : execution.bytes + bytes;
    this.#bytes += listed - execution.bytes;
    execution.bytes = listed;
    this.#touch(execution);
  }

  /** Once no resume of it is unanswered, what was waited for does not come. */
  #settle(execution: Execution): void {
    if (execution.unanswered > 0) return;
    for (const seq of [...execution.early.keys()].sort((a, b) => a - b)) execution.early.get(seq)?.();
    const unknown = execution.unknown.splice(0);
    // A call that was answered twice is on no list any more.
    if (unknown.some((id) => execution.calls?.has(id) === true)) this.#end(execution);
    else if (execution.calls !== undefined) this.#touch(execution);
  }

  /** It is over: nothing is left of it. */
  #end(execution: Execution): void {
    this.#forget(execution);
    execution.over = true;
    for (const id of execution.ids) this.#byCall.delete(id);
    execution.ids = [];
    this.#unlisted.delete(execution);
  }

  /** Its list goes; whose it is stays known. */
  #forget(execution: Execution): void {
    if (execution.calls === undefined) return;
    execution.ids = execution.calls.ids();
    execution.calls = undefined;
    this.#bytes -= execution.bytes;
    execution.bytes = 0;
    this.#listed.delete(execution);
    this.#unlisted.add(execution);
  }

  #touch(execution: Execution): void {
    execution.touched = performance.now();
    this.#listed.delete(execution);
    this.#listed.add(execution);
    if (execution.keptMs < Infinity) this.#timer ??= setTimeout(() => this.#sweep(), execution.keptMs / LOOKS).unref();
  }

  /** The stillest ones make room. */
  #bound(): void {
    while (this.#bytes > MAX_HELD_CALL_BYTES && this.#listed.size > 1) this.#forget(first(this.#listed));
    while (this.#byCall.size > MAX_HELD_SUSPENSIONS && this.#listed.size + this.#unlisted.size > 1) {
      this.#end(first(this.#unlisted.size > 0 ? this.#unlisted : this.#listed));
    }
  }

  #sweep(): void {
    this.#timer = undefined;
    const now = performance.now();
    let keptMs = Infinity;
    for (const execution of this.#listed) {
      if (execution.unanswered === 0 && now - execution.touched >= execution.keptMs) this.#forget(execution);
      else keptMs = Math.min(keptMs, execution.keptMs);
    }
    if (keptMs < Infinity) this.#timer = setTimeout(() => this.#sweep(), keptMs / LOOKS).unref();
  }

  /** Lists go with their connection. */
  #watch(connection: Connection): void {
    const { serial } = connection;
    if (this.#watched.has(serial)) return;
    this.#watched.add(serial);
    connection.onFailure(() => {
      this.#watched.delete(serial);
      for (const execution of this.#listed) if (execution.serial === serial) this.#forget(execution);
    });
  }
}

function first(executions: Set<Execution>): Execution {
  const [execution] = executions;
  return execution as Execution;
}

/** What the calls of an answer take, about. */
function callBytes(fields: Fields): number {
  const { suspensions } = fields;
  if (!Array.isArray(suspensions)) return 0;
  let bytes = 0;
  for (const { args } of suspensions as { args?: unknown }[]) if (args instanceof Bin) bytes += args.end - args.start;
  return bytes;
}
