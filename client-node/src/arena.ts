/**
 * Shared memory of one connection (SPEC 7): large payloads lie in a file of /dev/shm that both sides have open, and messages
 * say where. Opened when the first large payload has passed, never before; whatever fails, payloads go through the socket.
 *
 * Invariants: every place in the file is chosen here, for what we send and for what we lend to answers, and is in use from its
 * request to the answer; it is read and written with plain file I/O. Nothing of it is left when the process ends: the file
 * loses its name as soon as both sides have it.
 */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';

import { ARENA_THRESHOLD_BYTES, KEEP_BATCH_BYTES } from './limits.js';
import { map, uint } from './typed.js';
import { writeValue } from './payload.js';
import { Bin, MalformedError } from './reader.js';
import { Writer } from './writer.js';

const NAME = /^nexus-sidecar\.[0-9]+\.[0-9a-f]{32}$/;
/** Payloads begin at multiples of this: pages are not shared by two of them. */
const ALIGN_BYTES = 4096;
/** After a large answer, so many requests lend a place for theirs. */
const LEND_REQUESTS = 64;
const MIN_LENT_BYTES = 1024 * 1024;
/** The fields of answers that may lie in the file. */
const ANSWER_FIELDS = ['value', 'stateMutations', 'state'] as const;

/** As the wire has it. */
export type Region = { generation: number; offset: number; len: number };
export type Regions = { [field: string]: Region };

interface Block {
  offset: number;
  end: number;
}

/** The file. */
interface Segment {
  fd: number;
  generation: number;
  bytes: number;
}

export class Arena {
  readonly #segment: Segment;
  /** In use, by place. */
  readonly #blocks: Block[] = [];
  readonly #byRequest = new Map<number, Block[]>();
  #lend = 0;
  #lentBytes = MIN_LENT_BYTES;
  /** The last payload was large: the next one is encoded here, in memory that is kept, instead of in the batch. */
  #expectLarge = false;
  #encoding = false;
  readonly #scratch: Writer;
  #broken = false;
  /** A write failed: nothing is put here any more. */
  #full = false;

  /** Throws when the file is not there or is not what it should be. */
  static open(name: string, generation: number, bytes: number): Arena {
    if (!NAME.test(name)) throw new MalformedError(`a segment is called ${JSON.stringify(name)}`);
    const fd = openSync(`/dev/shm/${name}`, constants.O_RDWR | constants.O_NOFOLLOW);
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.uid !== process.getuid?.() || stat.size < bytes) {
      closeSync(fd);
      throw new MalformedError('the segment is not what it should be');
    }
    return new Arena({ fd, generation, bytes });
  }

  private constructor(segment: Segment) {
    this.#segment = segment;
    this.#scratch = new Writer(KEEP_BATCH_BYTES, segment.bytes);
  }

  close(): void {
    if (this.#broken) return;
    this.#broken = true;
    closeSync(this.#segment.fd);
  }

  /** Writes a payload where `request` can point at it. Undefined: it is too small, or there is no room. */
  put(request: number, bytes: Uint8Array): Region | undefined {
    if (bytes.length < ARENA_THRESHOLD_BYTES) return undefined;
    const region = this.#reserve(request, bytes.length);
    if (region === undefined) return undefined;
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#segment.fd, bytes, done, bytes.length - done, region.offset + done);
      }
      return region;
    } catch {
      // /dev/shm is full, most likely: the socket has room. Answers that are under way are still read from here
      this.#full = true;
      return undefined;
    }
  }

  /** Encodes a value aside, if it is likely to be large. Undefined: to be encoded in place. The bytes hold until the next call. */
  encode(value: unknown): Buffer | undefined {
    if (!this.#expectLarge || this.#encoding || this.#broken) return undefined;
    this.#encoding = true; // a getter in the value may make another request
    try {
      this.#scratch.length = 0;
      writeValue(this.#scratch, value);
    } finally {
      this.#encoding = false;
    }
    const bytes = this.#scratch.written();
    this.#expectLarge = bytes.length >= ARENA_THRESHOLD_BYTES;
    return bytes;
  }

  expectLarge(): void {
    this.#expectLarge = true;
  }

  /** A place for the answer of a request, when answers are likely to be large. `always`: when this one may be. */
  lend(request: number, always = false): Region | undefined {
    if (this.#lend === 0 && !always) return undefined;
    return this.#reserve(request, Math.min(this.#lentBytes, Math.floor(this.#segment.bytes / 4)));
  }

  /** Takes note of the size of an answer's payloads. */
  noteAnswer(bytes: number): void {
    if (bytes >= ARENA_THRESHOLD_BYTES) {
      this.#lend = LEND_REQUESTS;
      this.#lentBytes = Math.max(this.#lentBytes, bytes + Math.floor(bytes / 4));
    } else if (this.#lend > 0) this.#lend--;
  }

  /** Puts what an answer has in the file into its fields, copied. Throws MalformedError. */
  fetch(fields: Record<string, unknown>): void {
    const regions = map(fields['regions'], 'regions');
    for (const key of ANSWER_FIELDS) {
      if (regions[key] === undefined) continue;
      if (fields[key] !== undefined) throw new MalformedError(`\`${key}\` is there twice`);
      fields[key] = this.#read(map(regions[key], 'regions'));
    }
  }

  /** The request is answered: its places are free. */
  release(request: number): void {
    const blocks = this.#byRequest.get(request);
    if (blocks === undefined) return;
    this.#byRequest.delete(request);
    for (const block of blocks) this.#blocks.splice(this.#blocks.indexOf(block), 1);
  }

  #read(region: Record<string, unknown>): Bin {
    const offset = uint(region, 'offset');
    const len = uint(region, 'len');
    const { fd, generation, bytes } = this.#segment;
    if (this.#broken || uint(region, 'generation') !== generation || offset + len > bytes) {
      throw new MalformedError('a region that is not in the segment');
    }
    const copy = Buffer.allocUnsafeSlow(len);
    for (let done = 0; done < len; ) {
      const count = readSync(fd, copy, done, len - done, offset + done);
      if (count === 0) throw new MalformedError('a region beyond the end of the segment');
      done += count;
    }
    return new Bin(copy, 0, len);
  }

  /** First fit: there are never more places in use than requests under way. */
  #reserve(request: number, bytes: number): Region | undefined {
    if (this.#broken || this.#full) return undefined;
    const size = Math.ceil(bytes / ALIGN_BYTES) * ALIGN_BYTES;
    let offset = 0;
    let index = 0;
    for (; index < this.#blocks.length; index++) {
      const block = this.#blocks[index] as Block;
      if (block.offset - offset >= size) break;
      offset = block.end;
    }
    if (offset + size > this.#segment.bytes) return undefined;
    const block = { offset, end: offset + size };
    this.#blocks.splice(index, 0, block);
    const blocks = this.#byRequest.get(request);
    if (blocks === undefined) this.#byRequest.set(request, [block]);
    else blocks.push(block);
    return { generation: this.#segment.generation, offset, len: bytes };
  }
}
