/**
 * Frames (SPEC 1): u32 LE length, then that many bytes of MessagePack `[kind, id, fields]`. No I/O.
 *
 * The splitter hands out frames that lie wholly in a chunk as they are, without a copy; only a frame that spans chunks is
 * gathered, in one buffer of its exact size. A length is checked before anything is reserved.
 */
import { NexusError } from './errors.js';
import type { Writer } from './writer.js';

const HEADER_BYTES = 4;

/** Starts a frame and returns the position that `endFrame` needs. The caller writes the map of fields in between. */
export function beginFrame(writer: Writer, kind: number, id: number): number {
  const at = writer.reserve(HEADER_BYTES + 12);
  writer.length = at + HEADER_BYTES;
  writer.arrayHeader(3);
  writer.uint(kind);
  writer.uint(id);
  return at;
}

/** Where a frame that begins at `at` ends at the latest. */
export function frameEnd(at: number, maxFrameBytes: number): number {
  return at + HEADER_BYTES + maxFrameBytes;
}

export function endFrame(writer: Writer, at: number, maxFrameBytes: number): void {
  const size = writer.length - at - HEADER_BYTES;
  if (size > maxFrameBytes) {
    throw new NexusError('INVALID_ARGUMENT', `the request is ${size} bytes; a frame carries at most ${maxFrameBytes}`);
  }
  writer.setUint32LE(at, size);
}

/** Gets the body of one frame: `bytes` from `start` to `end`. Valid only during the call, unless copied. */
export type FrameSink = (bytes: Buffer, start: number, end: number) => void;

export class FrameSplitter {
  readonly #sink: FrameSink;
  maxFrameBytes: number;
  readonly #header = Buffer.allocUnsafeSlow(HEADER_BYTES);
  #headerBytes = 0;
  /** The frame that spans chunks, once its length is known. */
  #body: Buffer | undefined;
  #bodyBytes = 0;

  constructor(maxFrameBytes: number, sink: FrameSink) {
    this.maxFrameBytes = maxFrameBytes;
    this.#sink = sink;
  }

  /** Takes the next bytes of the stream. Throws PROTOCOL_ERROR for a length that no frame may have; the stream is then dead. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#body !== undefined) {
        at = this.#fillBody(this.#body, chunk, at);
      } else if (this.#headerBytes === 0 && chunk.length - at >= HEADER_BYTES) {
        const start = at + HEADER_BYTES;
        const size = this.#checked(chunk.readUInt32LE(at));
        if (chunk.length - start >= size) {
          at = start + size;
          this.#sink(chunk, start, at);
        } else {
          this.#expect(size);
          at = start;
        }
      } else {
        const count = Math.min(HEADER_BYTES - this.#headerBytes, chunk.length - at);
        chunk.copy(this.#header, this.#headerBytes, at, at + count);
        this.#headerBytes += count;
        at += count;
        if (this.#headerBytes === HEADER_BYTES) {
          this.#headerBytes = 0;
          this.#expect(this.#checked(this.#header.readUInt32LE(0)));
        }
      }
    }
  }

  #checked(size: number): number {
    if (size === 0 || size > this.maxFrameBytes) {
      throw new NexusError('PROTOCOL_ERROR', `a frame of ${size} bytes; allowed are 1 to ${this.maxFrameBytes}`);
    }
    return size;
  }

  #expect(size: number): void {
    this.#body = Buffer.allocUnsafeSlow(size);
    this.#bodyBytes = 0;
  }

  #fillBody(body: Buffer, chunk: Buffer, at: number): number {
    const count = Math.min(body.length - this.#bodyBytes, chunk.length - at);
    chunk.copy(body, this.#bodyBytes, at, at + count);
    this.#bodyBytes += count;
    if (this.#bodyBytes === body.length) {
      this.#body = undefined;
      this.#sink(body, 0, body.length);
    }
    return at + count;
  }
}
