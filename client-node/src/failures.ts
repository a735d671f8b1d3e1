/**
 * What a run that failed tells beside the error itself: what had happened by then, what the extension threw that the handler let
 * through, and where the caller's `run` stands.
 */
import { copyOf, NexusError } from './errors.js';
import type { EmittedEvent, ExecutionMetrics, HandlerNote, LogRecord, StateMutation, ViewCommand } from './types.js';
import type { Segment } from './types.js';

/** Errors of extensions that a run remembers, to be the cause of its own. */
const MAX_REMEMBERED_ERRORS = 100;
/** Stands for errors that a handler cannot tell apart, and so nobody by what the handler throws. */
const AMBIGUOUS = Symbol('ambiguous');

/**
 * What extensions threw, by what the handler got. An error that the handler throws on says which extension and method it is of, but
 * not which call: where two calls threw different ones that look the same, none is known to be it. Once there are too many, later ones
 * are not remembered, rather than earlier ones forgotten: what was forgotten could make a later one look like the only one.
 */
export class ThrownErrors {
  readonly #bySight = new Map<string, unknown>();

  add(extension: string, method: string, message: string, error: unknown): void {
    const sight = JSON.stringify([extension, method, message]);
    const known = this.#bySight.has(sight);
    if (!known && this.#bySight.size >= MAX_REMEMBERED_ERRORS) return;
    this.#bySight.set(sight, !known || Object.is(this.#bySight.get(sight), error) ? error : AMBIGUOUS);
  }

  /** What was thrown, where the error is certainly that, thrown on by the handler. */
  causeOf({ code, properties, message }: NexusError): { cause?: unknown } {
    if (code !== 'EXECUTION_ERROR' || properties === undefined) return {};
    const sight = JSON.stringify([properties['extension'], properties['method'], message]);
    const error = this.#bySight.get(sight);
    return error === AMBIGUOUS || !this.#bySight.has(sight) ? {} : { cause: error };
  }
}

/** The effects of all segments so far, in order. */
export interface Happened {
  segments: Segment[];
  stateMutations: StateMutation[];
  events: EmittedEvent[];
  viewCommands: ViewCommand[];
  logs: LogRecord[];
  /** Of the whole execution, as far as it is known. */
  metrics?: ExecutionMetrics;
  /** On a resident state: its version with all of it. */
  stateVersion?: number;
  /** What the handler's author should know of its text. Absent: nothing. */
  warnings?: HandlerNote[];
  /** Limits that count although the call has asked for wider ones (`timeoutMs` too). Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

export function happened(segments: Segment[]): Happened {
  const all: Happened = { segments, stateMutations: [], events: [], viewCommands: [], logs: [] };
  for (const segment of segments) {
    append(all.stateMutations, segment.stateMutations);
    append(all.events, segment.events);
    append(all.viewCommands, segment.viewCommands);
    append(all.logs, segment.logs);
  }
  const last = segments.at(-1);
  if (last !== undefined) all.metrics = last.metrics;
  if (last?.stateVersion !== undefined) all.stateVersion = last.stateVersion;
  const [first] = segments;
  if (first?.warnings !== undefined) all.warnings = first.warnings;
  if (first?.limited !== undefined) all.limited = first.limited;
  return all;
}

/** Not `push(...items)`: that puts them all on the stack. */
function append<Item>(list: Item[], items: readonly Item[]): void {
  for (const item of items) list.push(item);
}

/**
 * A copy of the error that a run ends with: many runs may end with the same one. What has happened stands in properties that are not
 * enumerable, so that printing the error shows the error. Who repeats a run that had begun has its effects twice: not retryable.
 */
export function failure(error: unknown, segments: Segment[], thrown: ThrownErrors): unknown {
  if (!(error instanceof NexusError)) return error;
  const source = Object.hasOwn(error, 'cause') ? {} : thrown.causeOf(error);
  const retryable = error.retryable && segments.length === 0;
  const copy = copyOf(error, { retryable, ...source });
  for (const [key, value] of Object.entries(happened(segments))) define(copy, key, value);
  return copy;
}

function define(error: NexusError, key: string, value: unknown): void {
  Object.defineProperty(error, key, { value, configurable: true, writable: true });
}

/**
 * Adds to the stack of an error who awaited what failed. Called in the catch of an async function: V8 then knows the chain of awaits
 * above it, at no cost for those that succeed.
 */
export function withCaller(error: unknown): unknown {
  if (!(error instanceof NexusError) || error.stack === undefined) return error;
  const here: { stack?: string } = {};
  Error.captureStackTrace(here);
  const awaiting = here.stack?.split('\n').filter((line) => line.startsWith('    at async ')) ?? [];
  const missing = awaiting.filter((line) => error.stack?.includes(line) !== true);
  if (missing.length > 0) define(error, 'stack', [error.stack, ...missing].join('\n'));
  return error;
}
