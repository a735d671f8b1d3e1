/**
 * One connection: requests out, answers in. Knows frames and ids; knows neither processes nor what a request means.
 *
 * Invariants: every request settles exactly once, by its answer or by `fail`; after `fail` nothing is written and every new
 * request rejects with the same error. Requests of one tick leave in one write. No more requests are with the sidecar than it
 * allows, and none is written while the kernel does not take what was written before; the others wait here, encoded, in order,
 * up to a bound in number and in bytes. No timer runs per request. The socket holds Node alive only while a foreground
 * request is unanswered.
 */
import type { Socket } from 'node:net';

import { Arena } from './arena.js';
import { midway, NexusError } from './errors.js';
import type { Fields } from './fields.js';
import { endFrame, frameEnd, FrameSplitter } from './frames.js';
import { Kind } from './kinds.js';
import { ARENA_THRESHOLD_BYTES, KEEP_BATCH_BYTES, MAX_FRAME_BYTES, MAX_WAITING_BYTES, MAX_WAITING_REQUESTS } from './limits.js';
import {
  PROTOCOL_VERSION,
  readAnswer,
  readError,
  readHello,
  writeHello,
  writeRequest,
  type Answer,
  type HelloInfo,
} from './messages.js';
import type { Place } from './places.js';
import { Bin, MalformedError } from './reader.js';
import { Scheduler, type Bounds } from './scheduler.js';
import { string, uint } from './typed.js';
import { CLIENT_NAME } from './version.js';
import { Vigil } from './vigil.js';
import type { Turn } from './waiting.js';
import { Writer } from './writer.js';

const FIRST_BATCH_BYTES = 16 * 1024;

/** Writes one request with this id and returns where its frame began. */
export type RequestEncoder = (writer: Writer, id: number) => number;

/** A result that has come and waits for another to be handed out before it. Not a promise: those would overtake it that have waited for none. */
export class Held<T> {
  readonly handOut: (settle: { resolve(value: T): void; reject(error: Error): void }) => void;

  constructor(handOut: Held<T>['handOut']) {
    this.handOut = handOut;
  }
}

interface Pending {
  expect: number;
  background: boolean;
  /** Goes on with an execution. */
  continues: boolean;
  /** By the scheduler: it is not urgent. */
  counted: boolean;
  settle(fields: Record<string, unknown>): void;
  reject(error: NexusError): void;
}

export interface RequestOptions extends Turn {
  /** Does not keep Node alive. */
  background?: boolean;
  /** Sent although the sidecar is busy with as many requests as it allows others: cancel, ping, stats. */
  urgent?: boolean;
  /** Told the id once the request is accepted here: what `cancel` and `withdraw` name. */
  onId?: (id: number) => void;
}

let connections = 0;

/** What may wait here for the sidecar. */
export interface WaitingBounds extends Bounds {
  /** Large payloads may go through shared memory. */
  sharedMemory?: boolean;
  /** The event loop may look for an answer (vigil.ts). */
  spin?: boolean;
}

export class Connection {
  /** Tells connections of this process apart. */
  readonly serial = ++connections;
  /** Settles with the sidecar's hello, or rejects as the connection does. */
  readonly hello: Promise<HelloInfo>;
  #helloSettle!: { resolve(info: HelloInfo): void; reject(error: NexusError): void };
  #info: HelloInfo | undefined;

  #socket: Socket | undefined;
  #failure: NexusError | undefined;
  readonly #watchers = new Set<(error: NexusError) => void>();

  readonly #pending = new Map<number, Pending>();
  readonly #scheduler: Scheduler;
  /** The kernel has not taken all that was written. */
  #blocked = false;
  #foreground = 0;
  #lastId = 0;
  #maxFrameBytes = MAX_FRAME_BYTES;

  #batch = this.#newWriter(FIRST_BATCH_BYTES);
  #encoding = false;
  #arena: Arena | undefined;
  /** Something large was sent before the hello came. */
  #wanted = false;
  /** `none`: no payload was large enough yet. `never`: switched off, refused, or broken. */
  #arenaState: 'none' | 'opening' | 'open' | 'never';
  #flushQueued = false;
  #idleQueued = false;
  readonly #vigil: Vigil;
  readonly #splitter = new FrameSplitter(MAX_FRAME_BYTES, (bytes, start, end) => this.#receive(bytes, start, end));

  constructor(bounds: WaitingBounds = { requests: MAX_WAITING_REQUESTS, bytes: MAX_WAITING_BYTES }) {
    this.#scheduler = new Scheduler(bounds, () => this.#sendWaiting());
    this.#vigil = new Vigil(bounds.spin === true);
    this.#arenaState = bounds.sharedMemory === true ? 'none' : 'never';
    this.hello = new Promise((resolve, reject) => {
      this.#helloSettle = { resolve, reject };
    });
    // Whoever needs the hello awaits it; a connection that fails before must not become an unhandled rejection.
    this.hello.catch(() => undefined);
    endFrame(this.#batch, writeHello(this.#batch, CLIENT_NAME), MAX_FRAME_BYTES);
  }

  /** Requests made before `attach` wait, and can be withdrawn. */
  attach(socket: Socket): void {
    if (this.#failure !== undefined) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', () => undefined); // 'close' follows and is what the owner watches
    socket.on('drain', () => {
      this.#blocked = false;
      this.#sendWaiting();
    });
    if (this.#foreground === 0) socket.unref();
    this.#queueFlush();
    this.#sendWaiting();
  }

  /** Shared memory for large payloads, when there is one. */
  get arena(): Arena | undefined {
    return this.#arena;
  }

  get failure(): NexusError | undefined {
    return this.#failure;
  }

  get info(): HelloInfo | undefined {
    return this.#info;
  }

  /** Calls back once when the connection fails; returns how to stop watching. */
  onFailure(callback: (error: NexusError) => void): () => void {
    if (this.#failure !== undefined) callback(this.#failure);
    else this.#watchers.add(callback);
    return () => this.#watchers.delete(callback);
  }

  /**
   * Sends a request; `decode` turns the fields of the answer of kind `expect` into the result. A fault in encoding rejects
   * this request alone and leaves no byte behind.
   */
  request<T>(
    expect: number,
    encode: RequestEncoder,
    decode: (fields: Record<string, unknown>) => T | Held<T>,
    options: RequestOptions = {},
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const continues = options.continues === true;
      if (this.#failure !== undefined) return reject(ended(this.#failure, continues));
      const id = this.#nextId();
      // Before the socket is there everything waits, so that it can be withdrawn, and in the order of the calls.
      const isUrgent = options.urgent === true && this.#socket !== undefined;
      const isSent = !isUrgent && this.#mayWrite() && this.#scheduler.passes(options);
      try {
        if (isUrgent || isSent) this.#write(id, encode);
        else this.#scheduler.wait(id, () => this.#encodeAside(id, encode), options);
      } catch (error) {
        if (isSent) this.#scheduler.done();
        this.#arena?.release(id);
        if (options.place !== undefined) this.#scheduler.leave(options.place);
        throw error;
      }
      // Encoding may have run a getter of the caller's that ended this connection.
      if (this.#failure !== undefined) return reject(ended(this.#failure, continues));
      const background = options.background === true;
      const settle = (fields: Record<string, unknown>): void => {
        const decoded = decode(fields);
        if (decoded instanceof Held) decoded.handOut({ resolve, reject });
        else resolve(decoded);
      };
      this.#pending.set(id, { expect, background, continues, counted: !isUrgent, settle, reject });
      if (!background) this.#hold();
      options.onId?.(id);
    });
  }

  /** Keeps Node alive, as a request does, until the function that it returns is called. */
  hold(): () => void {
    this.#hold();
    return () => this.#release();
  }

  #hold(): void {
    if (this.#foreground++ === 0 && !this.#idleQueued) this.#socket?.ref();
  }

  #release(): void {
    if (this.#failure !== undefined || --this.#foreground > 0 || this.#idleQueued) return;
    // Whoever calls in a row has the next request out before this tick: no ref and unref for each.
    this.#idleQueued = true;
    process.nextTick(() => {
      this.#idleQueued = false;
      if (this.#foreground === 0) this.#socket?.unref();
    });
  }

  #mayWrite(): boolean {
    return this.#socket !== undefined && !this.#blocked;
  }

  /** What was begun at this place is over. */
  leave(place: Place): void {
    this.#scheduler.leave(place);
  }

  /** Takes back a request that has not been sent yet: it rejects with `error`. False when it is out already. */
  withdraw(id: number, error: NexusError): boolean {
    const pending = this.#pending.get(id);
    if (pending === undefined || !this.#scheduler.withdraw(id)) return false;
    this.#settled(id, pending);
    pending.reject(error);
    return true;
  }

  /** Ends the connection: everything pending rejects with `error`. The first call wins. */
  fail(error: NexusError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#helloSettle.reject(error);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#scheduler.close();
    this.#foreground = 0;
    this.#vigil.off();
    this.#socket?.destroy();
    this.#arena?.close();
    this.#arena = undefined;
    for (const request of pending) request.reject(ended(error, request.continues));
    for (const watcher of this.#watchers) watcher(error);
    this.#watchers.clear();
  }

  #nextId(): number {
    do {
      this.#lastId = this.#lastId >= 0xffff_ffff ? 1 : this.#lastId + 1;
    } while (this.#pending.has(this.#lastId));
    return this.#lastId;
  }

  #write(id: number, encode: RequestEncoder): void {
    if (this.#encoding) {
      // A getter in a value that is being encoded made this request: it must not land inside the other frame.
      const frame = this.#encodeAside(id, encode);
      queueMicrotask(() => this.#append(frame));
      return;
    }
    const batch = this.#batch;
    const start = batch.length;
    this.#encoding = true;
    try {
      batch.frameEnd = frameEnd(start, this.#maxFrameBytes);
      endFrame(batch, encode(batch, id), this.#maxFrameBytes);
      if (batch.length - start >= ARENA_THRESHOLD_BYTES) this.#wantArena();
    } catch (error) {
      batch.length = start;
      throw error;
    } finally {
      batch.frameEnd = Infinity;
      this.#encoding = false;
    }
    this.#written();
  }

  /** The value is encoded now, as it is now, whenever it will be sent. */
  #encodeAside(id: number, encode: RequestEncoder): Buffer {
    const writer = this.#newWriter(1024);
    writer.frameEnd = frameEnd(0, this.#maxFrameBytes);
    endFrame(writer, encode(writer, id), this.#maxFrameBytes);
    if (writer.length >= ARENA_THRESHOLD_BYTES) this.#wantArena();
    return Buffer.from(writer.written());
  }

  #append(frame: Buffer): void {
    this.#batch.raw(frame);
    this.#written();
  }

  #written(): void {
    // Large requests don't pile up in one buffer.
    if (this.#batch.length > KEEP_BATCH_BYTES) this.#flush();
    else this.#queueFlush();
  }

  /** Holds a batch and one frame on top of it. */
  #newWriter(bytes: number): Writer {
    return new Writer(bytes, 2 * KEEP_BATCH_BYTES + this.#maxFrameBytes);
  }

  /** nextTick runs when the microtasks are done: all that a batch of answers sets off leaves together. */
  #queueFlush(): void {
    if (this.#flushQueued || this.#socket === undefined) return;
    this.#flushQueued = true;
    process.nextTick(() => {
      this.#flushQueued = false;
      this.#flush();
    });
  }

  #flush(): void {
    const socket = this.#socket;
    const batch = this.#batch;
    if (socket === undefined || batch.length === 0 || this.#failure !== undefined) return;
    // A large write is asked to wait for 'drain' even where the kernel has taken it all; that is no reason to.
    if (!socket.write(batch.written()) && socket.writableLength > 0) this.#blocked = true;
    if (this.#pending.size === 1) this.#vigil.sent();
    else this.#vigil.off();
    if (socket.writableLength === 0 && batch.bytes.length <= KEEP_BATCH_BYTES) {
      batch.length = 0; // the kernel has copied everything: the buffer is ours again
    } else {
      this.#batch = this.#newWriter(FIRST_BATCH_BYTES);
    }
  }

  #onData(chunk: Buffer): void {
    this.#vigil.received();
    try {
      this.#splitter.push(chunk);
    } catch (error) {
      this.fail(protocolError(error));
    }
  }

  #receive(bytes: Buffer, start: number, end: number): void {
    if (this.#failure !== undefined) return;
    const answer = readAnswer(bytes, start, end);
    if (this.#info === undefined) return this.#receiveHello(answer);
    const pending = this.#pending.get(answer.id);
    if (pending === undefined) {
      if (answer.kind === Kind.error) throw readError(answer.fields['error']);
      throw new MalformedError(`answer to an unknown request ${answer.id}`);
    }
    if (answer.kind === Kind.error) {
      const error = readError(answer.fields['error']);
      if (pending.counted) this.#scheduler.done();
      this.#settled(answer.id, pending);
      pending.reject(error);
      return;
    }
    if (answer.kind !== pending.expect) throw new MalformedError(`answer of kind ${answer.kind}, expected ${pending.expect}`);
    if (end - start >= ARENA_THRESHOLD_BYTES) this.#wantArena();
    try {
      if (answer.fields['regions'] !== undefined) {
        if (this.#arena === undefined) throw new MalformedError('regions without a segment');
        this.#arena.fetch(answer.fields);
      }
      this.#arena?.noteAnswer(payloadBytes(answer.fields));
      pending.settle(answer.fields);
    } catch (error) {
      // The frame is whole but this answer is not what it should be: its request fails, the connection goes on.
      pending.reject(protocolError(error));
    }
    if (pending.counted) this.#scheduler.done(answer.kind === Kind.result ? queueMs(answer.fields) : undefined);
    this.#settled(answer.id, pending);
  }

  #receiveHello(answer: Answer): void {
    if (answer.kind === Kind.error) throw readError(answer.fields['error']);
    if (answer.kind !== Kind.helloAnswer || answer.id !== 0) throw new MalformedError('the first answer is not a hello');
    const info = readHello(answer.fields);
    if (info.version !== PROTOCOL_VERSION) {
      throw new MalformedError(`the sidecar speaks protocol ${info.version}, this client ${PROTOCOL_VERSION}`);
    }
    this.#info = info;
    this.#maxFrameBytes = info.limits['maxFrameBytes'] ?? MAX_FRAME_BYTES;
    this.#splitter.maxFrameBytes = this.#maxFrameBytes;
    this.#batch.maxBytes = 2 * KEEP_BATCH_BYTES + this.#maxFrameBytes;
    this.#scheduler.open(info.limits);
    this.#helloSettle.resolve(info);
    if (this.#wanted) this.#wantArena();
    this.#sendWaiting();
  }

  /** A large payload has passed: the next ones take the short way, if there is one. Nobody waits for this. */
  #wantArena(): void {
    if (this.#arenaState !== 'none') return;
    this.#wanted = true;
    const bytes = this.#info?.limits['maxArenaBytes'] ?? 0;
    if (bytes === 0) return;
    this.#arenaState = 'opening';
    // Not within a write or a read of a frame.
    queueMicrotask(() => void this.#openArena(bytes));
  }

  async #openArena(bytes: number): Promise<void> {
    const options = { background: true, urgent: true };
    const ask = <T>(fields: Fields, read: (answer: Record<string, unknown>) => T): Promise<T> =>
      this.request(Kind.arena, (writer, id) => writeRequest(writer, id, Kind.openArena, fields), read, options);
    let arena: Arena | undefined;
    try {
      const made = await ask({ bytes }, readArena);
      try {
        arena = Arena.open(made.name, made.generation, made.bytes);
      } catch {
        // Another container, another user, no /dev/shm: the socket it is.
      }
      await ask({ generation: made.generation, opened: arena !== undefined }, () => undefined);
      if (this.#failure !== undefined) throw this.#failure;
      this.#arena = arena;
      this.#arenaState = arena === undefined ? 'never' : 'open';
    } catch {
      // Refused, or the connection has ended.
      arena?.close();
      this.#arenaState = 'never';
    }
  }

  #sendWaiting(): void {
    while (this.#mayWrite()) {
      const frame = this.#scheduler.next();
      if (frame === undefined) return;
      this.#append(frame);
    }
  }

  #settled(id: number, pending: Pending): void {
    this.#pending.delete(id);
    this.#arena?.release(id);
    if (!this.#scheduler.isIdle) this.#sendWaiting();
    if (!pending.background) this.#release();
  }
}

/** The end of the connection, for one request: what an execution had done before is done. */
function ended(error: NexusError, continues: boolean): NexusError {
  return continues ? midway(error) : error;
}

/** How long the request of this result had waited in the sidecar. */
function queueMs(fields: Record<string, unknown>): number {
  const us = (fields['metrics'] as { queueUs?: unknown } | undefined)?.queueUs;
  return typeof us === 'number' ? us / 1000 : 0;
}

/** Of the largest payload in an answer. */
function payloadBytes(fields: Record<string, unknown>): number {
  let most = 0;
  for (const key of ['value', 'stateMutations', 'state'] as const) {
    const field = fields[key];
    if (field instanceof Bin) most = Math.max(most, field.end - field.start);
  }
  return most;
}

function readArena(fields: Record<string, unknown>): { generation: number; bytes: number; name: string } {
  return { generation: uint(fields, 'generation'), bytes: uint(fields, 'bytes'), name: string(fields, 'name') };
}

function protocolError(error: unknown): NexusError {
  if (error instanceof NexusError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new NexusError('PROTOCOL_ERROR', `the sidecar broke the protocol: ${message}`);
}
