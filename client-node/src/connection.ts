/**
 * One connection: requests out, answers in. Knows ids, and what belongs to which request; the socket is wire.ts, whose turn it is
 * scheduler.ts, shared memory sharing.ts. Knows neither processes nor what a request means.
 *
 * Invariants: every request settles exactly once, by its answer or by `fail`; parts of an answer are handed on before it. After `fail`
 * nothing is written and every new request rejects with the same error. No more requests are with the sidecar than it
 * allows, and none is written while the kernel does not take what was written before; the others wait in the scheduler, encoded, in order,
 * up to a bound in number and in bytes. No timer runs per request.
 */
import type { Socket } from 'node:net';

import { readAnswer, readError, readHello, type Answer, type HelloInfo } from './answers.js';
import type { Arena } from './arena.js';
import { midway, NexusError } from './errors.js';
import { Kind } from './kinds.js';
import { MAX_FRAME_BYTES, MAX_WAITING_BYTES, MAX_WAITING_REQUESTS } from './limits.js';
import type { Place } from './places.js';
import { Bin, MalformedError } from './reader.js';
import { PROTOCOL_VERSION, writeHello, writeRequest } from './requests.js';
import { Scheduler, type Bounds } from './scheduler.js';
import { Sharing } from './sharing.js';
import { CLIENT_NAME } from './version.js';
import type { Turn } from './waiting.js';
import { Wire, type FrameEncoder } from './wire.js';


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
  onPart: RequestOptions['onPart'];
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
  /** Told of what comes with the request's id: true if it was a part, and the answer is still to come. Must not throw but for what is malformed. */
  onPart?: ((answer: Answer) => boolean) | undefined;
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
  #failure: NexusError | undefined;
  readonly #watchers = new Set<(error: NexusError) => void>();

  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  readonly #scheduler: Scheduler;
  readonly #wire: Wire;
  readonly #sharing: Sharing;

  constructor(bounds: WaitingBounds = { requests: MAX_WAITING_REQUESTS, bytes: MAX_WAITING_BYTES }) {
    this.#scheduler = new Scheduler(bounds, () => this.#sendWaiting());
    this.#wire = new Wire(
      {
        onFrame: (bytes, start, end) => this.#receive(bytes, start, end),
        onBroken: (error) => this.fail(protocolError(error)),
        onOpen: () => this.#sendWaiting(),
        isAlone: () => this.#pending.size === 1,
      },
      bounds.spin === true,
    );
    const background = { background: true, urgent: true };
    this.#sharing = new Sharing(bounds.sharedMemory === true, (fields, read) =>
      this.request(Kind.arena, (writer, id) => writeRequest(writer, id, Kind.openArena, fields), read, background),
    );
    this.hello = new Promise((resolve, reject) => {
      this.#helloSettle = { resolve, reject };
    });
    // Whoever needs the hello awaits it; a connection that fails before must not become an unhandled rejection.
    this.hello.catch(() => undefined);
    this.#wire.write((writer) => writeHello(writer, CLIENT_NAME), 0);
  }

  /** Requests made before `attach` wait, and can be withdrawn. */
  attach(socket: Socket): void {
    this.#wire.attach(socket);
  }

  /** Shared memory for large payloads, when there is one. */
  get arena(): Arena | undefined {
    return this.#sharing.arena;
  }

  /** Of a request at most, as far as it is known. */
  get maxFrameBytes(): number {
    return this.#info?.limits['maxFrameBytes'] ?? MAX_FRAME_BYTES;
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
    encode: FrameEncoder,
    decode: (fields: Record<string, unknown>) => T | Held<T>,
    options: RequestOptions = {},
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const continues = options.continues === true;
      if (this.#failure !== undefined) return reject(ended(this.#failure, continues));
      const id = this.#nextId();
      // Before the socket is there everything waits, so that it can be withdrawn, and in the order of the calls.
      const isUrgent = options.urgent === true && this.#wire.isAttached;
      const isSent = !isUrgent && this.#wire.isOpen && this.#scheduler.passes(options);
      try {
        if (isUrgent || isSent) this.#sharing.passed(this.#wire.write(encode, id));
        else this.#scheduler.wait(id, () => this.#encodeAside(id, encode), options);
      } catch (error) {
        if (isSent) this.#scheduler.done();
        this.arena?.release(id);
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
      const { onPart } = options;
      this.#pending.set(id, { expect, background, continues, counted: !isUrgent, onPart, settle, reject });
      if (!background) this.#wire.hold();
      options.onId?.(id);
    });
  }

  #encodeAside(id: number, encode: FrameEncoder): Buffer {
    const frame = this.#wire.encodeAside(encode, id);
    this.#sharing.passed(frame.length);
    return frame;
  }

  /** Keeps Node alive, as a request does, until the function that it returns is called. */
  hold(): () => void {
    this.#wire.hold();
    return () => this.#wire.release();
  }

  /** A place for what may be suspended, beside those that requests wait for. False: there is none now. */
  takePlace(place: Place): boolean {
    return this.#scheduler.takePlace(place);
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
    this.#wire.close();
    this.#sharing.close();
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

  #receive(bytes: Buffer, start: number, end: number): void {
    if (this.#failure !== undefined) return;
    const answer = readAnswer(bytes, start, end);
    if (this.#info === undefined) return this.#receiveHello(answer);
    const pending = this.#pending.get(answer.id);
    if (pending === undefined) {
      if (answer.kind === Kind.error) throw readError(answer.fields['error']);
      throw new MalformedError(`answer to an unknown request ${answer.id}`);
    }
    if (pending.onPart?.(answer) === true) return;
    if (answer.kind === Kind.error) {
      const error = readError(answer.fields['error']);
      if (pending.counted) this.#scheduler.done();
      this.#settled(answer.id, pending);
      pending.reject(error);
      return;
    }
    if (answer.kind !== pending.expect) throw new MalformedError(`answer of kind ${answer.kind}, expected ${pending.expect}`);
    this.#sharing.passed(end - start);
    try {
      const { arena } = this;
      if (answer.fields['regions'] !== undefined) {
        if (arena === undefined) throw new MalformedError('regions without a segment');
        arena.fetch(answer.fields);
      }
      arena?.noteAnswer(payloadBytes(answer.fields));
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
    this.#wire.limitFrames(info.limits['maxFrameBytes'] ?? MAX_FRAME_BYTES);
    this.#scheduler.open(info.limits);
    this.#helloSettle.resolve(info);
    this.#sharing.allow(info.limits['maxArenaBytes'] ?? 0);
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    while (this.#wire.isOpen) {
      const frame = this.#scheduler.next();
      if (frame === undefined) return;
      this.#wire.append(frame);
    }
  }

  #settled(id: number, pending: Pending): void {
    this.#pending.delete(id);
    this.arena?.release(id);
    if (!this.#scheduler.isIdle) this.#sendWaiting();
    if (!pending.background) this.#wire.release();
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

function protocolError(error: unknown): NexusError {
  if (error instanceof NexusError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new NexusError('PROTOCOL_ERROR', `the sidecar broke the protocol: ${message}`);
}
