/**
 * The socket of one connection: frames out, chunks in. Knows neither ids nor what a frame means.
 *
 * Invariants: frames leave in the order in which they were written here, those of one tick in one write; a frame whose encoding fails
 * leaves no byte behind; while the kernel does not take what was written before, `isOpen` is false. The socket holds Node alive only
 * while something in the foreground is unanswered.
 */
import type { Socket } from 'node:net';

import { endFrame, frameEnd, FrameSplitter, type FrameSink } from './frames.js';
import { KEEP_BATCH_BYTES, MAX_FRAME_BYTES } from './limits.js';
import { Vigil } from './vigil.js';
import { Writer } from './writer.js';

const FIRST_BATCH_BYTES = 16 * 1024;

/** Writes one frame with this id and returns where it began. */
export type FrameEncoder = (writer: Writer, id: number) => number;

/** What the owner hears. */
export interface WireEvents {
  /** The body of one frame; may throw. */
  onFrame: FrameSink;
  /** What came is no frame, or `onFrame` has thrown. */
  onBroken(error: unknown): void;
  /** Frames may be written again. */
  onOpen(): void;
  /** Whether exactly one request is unanswered: its answer may be waited for. */
  isAlone(): boolean;
}

export class Wire {
  readonly #events: WireEvents;
  readonly #splitter: FrameSplitter;
  readonly #vigil: Vigil;
  #socket: Socket | undefined;
  #isOver = false;
  /** The kernel has not taken all that was written. */
  #blocked = false;
  #foreground = 0;
  #maxFrameBytes = MAX_FRAME_BYTES;
  #batch = this.#newWriter(FIRST_BATCH_BYTES);
  #encoding = false;
  #flushQueued = false;
  #idleQueued = false;

  /** `spin`: the event loop may look for an answer (vigil.ts). */
  constructor(events: WireEvents, spin: boolean) {
    this.#events = events;
    this.#splitter = new FrameSplitter(MAX_FRAME_BYTES, events.onFrame);
    this.#vigil = new Vigil(spin);
  }

  /** What was written before waits until now. */
  attach(socket: Socket): void {
    if (this.#isOver) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', () => undefined); // 'close' follows and is what the owner watches
    socket.on('drain', () => {
      this.#blocked = false;
      this.#events.onOpen();
    });
    if (this.#foreground === 0) socket.unref();
    this.#queueFlush();
    this.#events.onOpen();
  }

  get isAttached(): boolean {
    return this.#socket !== undefined;
  }

  /** Whether a frame that is written now leaves at once. */
  get isOpen(): boolean {
    return this.#socket !== undefined && !this.#blocked;
  }

  /** What a frame may have from now on, in both directions. */
  limitFrames(maxFrameBytes: number): void {
    this.#maxFrameBytes = maxFrameBytes;
    this.#splitter.maxFrameBytes = maxFrameBytes;
    this.#batch.maxBytes = 2 * KEEP_BATCH_BYTES + maxFrameBytes;
  }

  close(): void {
    this.#isOver = true;
    this.#foreground = 0;
    this.#vigil.off();
    this.#socket?.destroy();
  }

  // ---- what holds Node alive

  hold(): void {
    if (this.#foreground++ === 0 && !this.#idleQueued) this.#socket?.ref();
  }

  release(): void {
    if (this.#isOver || --this.#foreground > 0 || this.#idleQueued) return;
    // Whoever calls in a row has the next request out before this tick: no ref and unref for each.
    this.#idleQueued = true;
    process.nextTick(() => {
      this.#idleQueued = false;
      if (this.#foreground === 0) this.#socket?.unref();
    });
  }

  // ---- out

  /** Writes a frame, and returns how many bytes it has. */
  write(encode: FrameEncoder, id: number): number {
    if (this.#encoding) {
      // A getter in a value that is being encoded made this request: it must not land inside the other frame.
      const frame = this.encodeAside(encode, id);
      queueMicrotask(() => this.append(frame));
      return frame.length;
    }
    const batch = this.#batch;
    const start = batch.length;
    this.#encoding = true;
    try {
      batch.frameEnd = frameEnd(start, this.#maxFrameBytes);
      endFrame(batch, encode(batch, id), this.#maxFrameBytes);
    } catch (error) {
      batch.length = start;
      throw error;
    } finally {
      batch.frameEnd = Infinity;
      this.#encoding = false;
    }
    const size = batch.length - start;
    this.#written();
    return size;
  }

  /** The value is encoded now, as it is now, whenever it will be sent. */
  encodeAside(encode: FrameEncoder, id: number): Buffer {
    const writer = this.#newWriter(1024);
    writer.frameEnd = frameEnd(0, this.#maxFrameBytes);
    endFrame(writer, encode(writer, id), this.#maxFrameBytes);
    return Buffer.from(writer.written());
  }

  append(frame: Buffer): void {
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
    if (socket === undefined || batch.length === 0 || this.#isOver) return;
    // A large write is asked to wait for 'drain' even where the kernel has taken it all; that is no reason to.
    if (!socket.write(batch.written()) && socket.writableLength > 0) this.#blocked = true;
    if (this.#events.isAlone()) this.#vigil.sent();
    else this.#vigil.off();
    if (socket.writableLength === 0 && batch.bytes.length <= KEEP_BATCH_BYTES) {
      batch.length = 0; // the kernel has copied everything: the buffer is ours again
    } else {
      this.#batch = this.#newWriter(FIRST_BATCH_BYTES);
    }
  }

  // ---- in

  #onData(chunk: Buffer): void {
    this.#vigil.received();
    try {
      this.#splitter.push(chunk);
    } catch (error) {
      this.#events.onBroken(error);
    }
  }
}
