/**
 * `runMany`: many handlers, or one handler on many contexts, in one request (SPEC 3, executeMany).
 *
 * Invariants: what the contexts hold is encoded before anything is sent, as it is then; results come in the order of the contexts, one
 * each; what goes wrong with one is its own result's `error`. The promise rejects for what is wrong with the call itself, and for an abort.
 * Frames follow one another: of the contexts none is begun before the one in front of it is done or waits for an extension.
 */
import { checkSignal } from './abort.js';
import type { Answer } from './answers.js';
import type { Connection } from './connection.js';
import { cancelOn, executeOn, isUnknownHandle, type Core } from './core.js';
import { abortError, NexusError } from './errors.js';
import { registryOf } from './extensions.js';
import { happened, type Happened } from './failures.js';
import { Kind } from './kinds.js';
import { MANY_BLOCK_BYTES, MANY_SUSPENDED_AT_ONCE, MAX_LISTED_NAMES, MAX_MANY_ITEMS } from './limits.js';
import { tellLimited } from './limited.js';
import { checkOptions, checkPlain } from './names.js';
import type { Place } from './places.js';
import { MalformedError } from './reader.js';
import { asOfNow, writeExecuteMany, writeManyItem, type ManyItem } from './requests.js';
import { checkUse } from './resident.js';
import { readPlainResult } from './results.js';
import { goOn, segmentOf, type Extensions, type RunOptions } from './run.js';
import { boolean, list } from './typed.js';
import type { ExecutionMetrics, ExecutionResult, HandlerContext } from './types.js';
import { checkHandle, checkLabels, checkSource, checkTimeout, CONTEXT_NAMES, contextFields, isLossless } from './validate.js';
import { Writer } from './writer.js';

/** What is one context's own: the rest is as the options of `runMany` say. */
export interface ManyContext extends Omit<HandlerContext, 'extensionRegistry' | 'lossy'> {
  /** Instead of the handler that all have in common: its text, or a handle of `precompileHandler`. */
  code?: string | Uint8Array;
  /** Of this one. */
  timeoutMs?: number;
}

/** Options that all contexts have in common. */
export type ManyOptions<State extends object = Record<string, unknown>, Exts = Extensions> = Omit<RunOptions<State, Exts>, 'onSegment' | 'onLog'>;

/** The effects of one execution, and what is told beside. */
export interface ManyEffects extends Happened {
  /** Absent: it was not run. */
  metrics?: ExecutionMetrics;
}

/** What came of one context. Its effects are there in both cases. */
export type ManyResult<Result = unknown> =
  | (ManyEffects & { status: 'success'; value: Result; error?: never })
  | (ManyEffects & { status: 'error'; error: NexusError; value?: never });

const COMMON = CONTEXT_NAMES.filter((name) => name !== 'extensionRegistry');
const OPTIONS = new Set<string>([...COMMON, 'extensions', 'onExtensionError', 'labels', 'signal', 'timeoutMs']);
const CONTEXT = new Set<string>([...COMMON.filter((name) => name !== 'lossy'), 'code', 'timeoutMs']);

/** Contexts, encoded: those of one frame at the most. */
interface Block {
  bytes: Buffer;
  /** Where each ends, and which of all it is. */
  items: { end: number; at: number }[];
}

export async function runMany(
  core: Core,
  code: string | Uint8Array | undefined,
  contexts: readonly ManyContext[],
  given: ManyOptions,
): Promise<ManyResult[]> {
  const options = checkOptions('what is given as options', 'option of `runMany`', given, OPTIONS);
  const { extensions = {}, onExtensionError } = options;
  checkPlain('`extensions`', extensions);
  const labels = checkLabels(options.labels ?? {});
  if (onExtensionError !== undefined && typeof onExtensionError !== 'function') throw invalid('`onExtensionError` is not a function');
  const signal = checkSignal(options);
  const registry = registryOf(extensions, options.capabilities);
  const common: ManyItem = asOfNow(contextFields(options, checkTimeout(options.timeoutMs), registry));
  common.capabilities ??= Object.keys(registry).map((name) => `ext:${name}`);
  if (code !== undefined) setCode(common, code);
  if (!Array.isArray(contexts)) throw invalid('the contexts are not an array');
  const items = readItems(contexts, code !== undefined, isLossless(options));
  if (signal?.aborted === true) throw abortError('the call was aborted', signal);
  const connection = core.connection();
  for (const { resident } of [common, ...items]) checkUse(resident, connection);
  const many = new Many(core, connection, common, items, { ...options, labels });
  for (const block of many.encode()) await many.send(block, signal);
  return many.results(signal);
}

function setCode(item: ManyItem, code: string | Uint8Array): void {
  if (code instanceof Uint8Array) item.handler = checkHandle(code);
  else item.source = checkSource(code);
}

/** By index: a hole is no context, and nothing is skipped. */
function readItems(contexts: readonly ManyContext[], isShared: boolean, lossless: boolean): ManyItem[] {
  const items: ManyItem[] = [];
  for (let at = 0; at < contexts.length; at++) {
    try {
      const context = checkOptions('it', 'field of a context', contexts[at] as ManyContext, CONTEXT);
      const checked = lossless ? { ...context, lossy: 'throw' as const } : context;
      const item: ManyItem = contextFields(checked, checkTimeout(context.timeoutMs), undefined);
      if (context.code !== undefined) setCode(item, context.code);
      else if (!isShared) throw invalid('it has no `code`, and no handler was given for all');
      items.push(item);
    } catch (error) {
      if (!(error instanceof NexusError)) throw error;
      throw new NexusError(error.code, `contexts[${at}]: ${error.message}`, { ...(error.context && { context: error.context }) });
    }
  }
  return items;
}

class Many {
  readonly #core: Core;
  readonly #connection: Connection;
  readonly #common: ManyItem;
  readonly #items: ManyItem[];
  readonly #options: ManyOptions;
  readonly #mayWait: boolean;
  readonly #results: (ManyResult | Promise<ManyResult>)[];

  constructor(core: Core, connection: Connection, common: ManyItem, items: ManyItem[], options: ManyOptions) {
    this.#core = core;
    this.#connection = connection;
    this.#common = common;
    this.#items = items;
    this.#options = options;
    this.#mayWait = Object.keys(options.extensions ?? {}).length > 0;
    this.#results = new Array<ManyResult>(items.length);
  }

  /** One that cannot be encoded has that as its result. */
  encode(): Block[] {
    const blocks: Block[] = [];
    const maxBytes = this.#connection.maxFrameBytes;
    let writer = new Writer(1024, maxBytes);
    let block: Block = { bytes: writer.bytes, items: [] };
    let names = 0;
    const end = (): void => {
      if (block.items.length === 0) return;
      block.bytes = writer.written();
      blocks.push(block);
      writer = new Writer(1024, maxBytes);
      block = { bytes: writer.bytes, items: [] };
      names = 0;
    };
    for (let at = 0; at < this.#items.length; at++) {
      const item = this.#items[at] as ManyItem;
      const listed = item.capabilities?.length ?? 0;
      if (block.items.length >= MAX_MANY_ITEMS || writer.length >= MANY_BLOCK_BYTES || names + listed > MAX_LISTED_NAMES / 2) end();
      // what fits no frame beside others may fit one alone
      for (;;) {
        const start = writer.length;
        try {
          // one whose handle turns out to be unknown is sent once more
          if (item.handler ?? this.#common.handler) this.#items[at] = asOfNow(item);
          writeManyItem(writer, this.#sent(this.#items[at] as ManyItem));
          block.items.push({ end: writer.length, at });
          names += listed;
          break;
        } catch (error) {
          writer.length = start;
          if (start > 0 && error instanceof NexusError && error.code === 'INVALID_ARGUMENT') {
            end();
            continue;
          }
          this.#results[at] = failed(error);
          break;
        }
      }
    }
    end();
    return blocks;
  }

  /** With the handle that the present sidecar knows. */
  #sent(item: ManyItem): ManyItem {
    return item.handler === undefined ? item : { ...item, handler: this.#core.currentHandle(item.handler) };
  }

  async send({ bytes, items }: Block, signal: AbortSignal | undefined): Promise<void> {
    if (this.#mayWait && this.#connection.info === undefined) await this.#greeted(signal);
    for (let done = 0; done < items.length; ) {
      if (signal?.aborted === true) throw this.#aborted(signal);
      const places = this.#mayWait ? this.#places(items.length - done) : [];
      const count = this.#mayWait ? places.length : items.length;
      const part = items.slice(done, done + count);
      const from = done === 0 ? 0 : (items[done - 1] as Block['items'][0]).end;
      const to = (part.at(-1) as Block['items'][0]).end;
      await this.#sendPart(bytes.subarray(from, to), part.map(({ at }) => at), places, signal);
      done += count;
    }
  }

  /** How many places there are, the sidecar says first. */
  async #greeted(signal: AbortSignal | undefined): Promise<void> {
    const release = this.#connection.hold();
    await new Promise<void>((resolve) => {
      const done = (): void => {
        signal?.removeEventListener('abort', done);
        resolve();
      };
      signal?.addEventListener('abort', done, { once: true });
      // what it fails with, the request fails with
      this.#connection.hello.then(done, done);
    });
    release();
  }

  /** As many as there are now; where there is none, one for which the request is to wait. */
  #places(most: number): Place[] {
    const places: Place[] = [];
    while (places.length < Math.min(most, MANY_SUSPENDED_AT_ONCE)) {
      const place: Place = { round: 0 };
      if (!this.#connection.takePlace(place)) break;
      places.push(place);
    }
    return places.length > 0 ? places : [{ round: 0 }];
  }

  async #sendPart(bytes: Buffer, order: readonly number[], places: Place[], signal: AbortSignal | undefined): Promise<void> {
    const connection = this.#connection;
    const common = this.#sent(this.#common);
    let told = 0;
    const take = (fields: Record<string, unknown>): void => {
      for (const result of list(fields, 'results', readPlainResult)) {
        const at = order[told];
        if (at === undefined) throw new MalformedError('more results than there are items');
        this.#take(at, result, places[told], signal);
        places[told] = { round: 0 };
        told++;
      }
    };
    const onPart = ({ kind, fields }: Answer): boolean => {
      if (kind !== Kind.results || fields['more'] === undefined || !boolean(fields, 'more')) return false;
      take(fields);
      return true;
    };
    let id = 0;
    const stop = (): void => {
      const withdrawn = new NexusError('CANCELLED', 'the call was aborted');
      if (!connection.withdraw(id, withdrawn)) cancelOn(connection, { request: id }).catch(() => undefined);
    };
    signal?.addEventListener('abort', stop, { once: true });
    // who has its place already waits behind nobody who needs one
    const place = places.find(({ round }) => round === 0);
    try {
      await connection.request(
        Kind.results,
        (writer, request) => writeExecuteMany(writer, request, common, order.length, bytes),
        (fields) => {
          take(fields);
          if (told < order.length) throw new MalformedError('fewer results than there are items');
        },
        { onPart, onId: (given) => (id = given), ...(place && { place }) },
      );
    } catch (error) {
      for (const at of order.slice(told)) this.#results[at] = failed(error);
    } finally {
      signal?.removeEventListener('abort', stop);
      for (const place of places) if (place.round !== 0) connection.leave(place);
    }
    // those that call extensions hold their places: the next ones wait for them
    if (this.#mayWait) await Promise.allSettled(order.map((at) => this.#results[at]));
    // also where those that had gone on without the request have come to their ends by it
    if (signal?.aborted === true) throw this.#aborted(signal);
  }

  #take(at: number, result: ExecutionResult, place: Place | undefined, signal: AbortSignal | undefined): void {
    const item = this.#items[at] as ManyItem;
    const asked = { ...this.#common, ...defined(item) };
    if (asked.timeoutMs !== undefined || asked.limits !== undefined) tellLimited(result, asked, this.#connection.info?.limits ?? {});
    if (result.status === 'suspended') this.#results[at] = this.#goOn(result, asked, place, signal);
    else if (asked.handler !== undefined && isUnknownHandle(result.error)) this.#results[at] = this.#again(asked, asked.handler, place, signal);
    else {
      if (place !== undefined) this.#connection.leave(place);
      this.#results[at] = outcome(result);
    }
  }

  async #goOn(first: ExecutionResult, item: ManyItem, place: Place | undefined, signal: AbortSignal | undefined): Promise<ManyResult> {
    const { handlerName, panelId, timeoutMs } = item;
    const options = { ...this.#options, ...defined({ handlerName, panelId, timeoutMs }) };
    try {
      const { value, ...rest } = await goOn(this.#connection, first, options, place, signal);
      return { status: 'success', value, ...rest };
    } catch (error) {
      const { segments = [] } = error as { segments?: ManyEffects['segments'] };
      return { ...failed(error), ...happened(segments) };
    }
  }

  /** The sidecar does not know the handle: it is compiled again, once for all. */
  async #again(item: ManyItem, handle: Uint8Array, place: Place | undefined, signal: AbortSignal | undefined): Promise<ManyResult> {
    try {
      const result = await this.#core.withHandle(handle, (handler) => executeOn(this.#connection, { ...item, handler }, readPlainResult));
      if (result.status === 'suspended') return await this.#goOn(result, item, place, signal);
      if (place !== undefined) this.#connection.leave(place);
      return outcome(result);
    } catch (error) {
      if (place !== undefined) this.#connection.leave(place);
      return failed(error);
    }
  }

  /** An abort ends the call, whatever still goes on without it. */
  async results(signal: AbortSignal | undefined): Promise<ManyResult[]> {
    const all = Promise.all(this.#results);
    if (signal === undefined) return all;
    let stop: (() => void) | undefined;
    const aborted = new Promise<never>((_, reject) => {
      stop = () => reject(this.#aborted(signal));
      signal.addEventListener('abort', stop, { once: true });
    });
    try {
      return await Promise.race([all, aborted]);
    } finally {
      if (stop !== undefined) signal.removeEventListener('abort', stop);
    }
  }

  /** What had come by then is there in `results`, with holes where nothing had. */
  #aborted(signal: AbortSignal): NexusError {
    const results = this.#results.map((result) => (result instanceof Promise ? undefined : result));
    return Object.defineProperty(abortError('the call was aborted', signal), 'results', { value: results, configurable: true });
  }
}

function outcome(result: ExecutionResult): ManyResult {
  const { error, returnValue } = result;
  const rest: ManyEffects = happened([segmentOf(result)]);
  return error === undefined ? { status: 'success', value: returnValue, ...rest } : { status: 'error', error, ...rest };
}

function failed(error: unknown): ManyResult {
  const told = error instanceof NexusError ? error : new NexusError('SERIALIZATION_ERROR', messageOf(error), { cause: error });
  return { status: 'error', error: told, ...happened([]) };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'what a getter or toJSON of the context threw';
}

/** Without what is undefined. */
function defined<Fields extends object>(fields: Fields): { [Key in keyof Fields]?: NonNullable<Fields[Key]> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as { [Key in keyof Fields]?: NonNullable<Fields[Key]> };
}

function invalid(message: string): NexusError {
  return new NexusError('INVALID_ARGUMENT', message);
}
