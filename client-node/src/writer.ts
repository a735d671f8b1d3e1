/**
 * MessagePack primitives into one growing buffer. Always the shortest form.
 *
 * The codec is our own because neither msgpackr nor @msgpack/msgpack gives SPEC 5: both send an unpaired surrogate as
 * invalid UTF-8 (which the sidecar must refuse), one drops Map, Set and ArrayBuffer, one has no exact 64-bit integers, both
 * fail on or rename a `__proto__` key, and msgpackr brings an optional native addon. It also writes a payload straight
 * into the outgoing frame. The test suite compares it with @msgpack/msgpack.
 */
import { NexusError } from './errors.js';

const TWO_32 = 0x1_0000_0000;
const MIN_INT64 = -(2n ** 63n);
const MAX_UINT64 = 2n ** 64n - 1n;
/** Strings up to this length are first tried as ASCII in JavaScript: cheaper than a call into C++. */
const SHORT_STRING = 40;

export class Writer {
  bytes: Buffer;
  length = 0;
  #view: DataView;
  maxBytes: number;
  /** Where the frame that is being written ends at the latest. */
  frameEnd = Infinity;

  constructor(initialBytes: number, maxBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(initialBytes);
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    this.maxBytes = maxBytes;
  }

  /** What was written, without a copy: valid until the next write. */
  written(): Buffer {
    return this.bytes.subarray(0, this.length);
  }

  /** How many bytes may still be written. */
  get room(): number {
    return Math.min(this.frameEnd, this.maxBytes) - this.length;
  }

  /**
   * Asked before `count` items are walked, each of which takes a byte at least: a value may say of itself that it has more of them
   * than anybody has time for.
   */
  claim(count: number): void {
    if (count > this.room) this.#tooLarge(`a value of ${count} items`);
  }

  #tooLarge(what: string): never {
    throw new NexusError('INVALID_ARGUMENT', `${what} is larger than a request may be: ${Math.min(this.frameEnd, this.maxBytes)} bytes`);
  }

  /** Makes room for `count` more bytes and returns the position to write at. */
  reserve(count: number): number {
    const needed = this.length + count;
    if (needed > this.bytes.length) this.#grow(needed);
    return this.length;
  }

  #grow(needed: number): void {
    if (needed > this.maxBytes || needed > this.frameEnd) this.#tooLarge('what is to be sent');
    const bytes = Buffer.allocUnsafeSlow(Math.min(Math.max(needed, this.bytes.length * 2), this.maxBytes));
    this.bytes.copy(bytes, 0, 0, this.length);
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  byte(value: number): void {
    const at = this.reserve(1);
    this.bytes[at] = value;
    this.length = at + 1;
  }

  raw(value: Uint8Array): void {
    const at = this.reserve(value.length);
    this.bytes.set(value, at);
    this.length = at + value.length;
  }

  nil(): void {
    this.byte(0xc0);
  }

  bool(value: boolean): void {
    this.byte(value ? 0xc3 : 0xc2);
  }

  /** A JavaScript number: an integer where it is exact (but -0 keeps its sign as a float), else float 64. */
  number(value: number): void {
    if (Number.isSafeInteger(value) && (value !== 0 || 1 / value > 0)) {
      if (value >= 0) this.uint(value);
      else this.#negative(value);
      return;
    }
    const at = this.reserve(9);
    this.bytes[at] = 0xcb;
    this.#view.setFloat64(at + 1, value);
    this.length = at + 9;
  }

  /** A safe integer >= 0. */
  uint(value: number): void {
    const at = this.reserve(9);
    const { bytes } = this;
    if (value < 0x80) {
      bytes[at] = value;
      this.length = at + 1;
    } else if (value < 0x100) {
      bytes[at] = 0xcc;
      bytes[at + 1] = value;
      this.length = at + 2;
    } else if (value < 0x10000) {
      bytes[at] = 0xcd;
      this.#view.setUint16(at + 1, value);
      this.length = at + 3;
    } else if (value < TWO_32) {
      bytes[at] = 0xce;
      this.#view.setUint32(at + 1, value);
      this.length = at + 5;
    } else {
      bytes[at] = 0xcf;
      this.#view.setUint32(at + 1, Math.floor(value / TWO_32));
      this.#view.setUint32(at + 5, value % TWO_32);
      this.length = at + 9;
    }
  }

  #negative(value: number): void {
    const at = this.reserve(9);
    const { bytes } = this;
    if (value >= -0x20) {
      bytes[at] = value + 0x100;
      this.length = at + 1;
    } else if (value >= -0x80) {
      bytes[at] = 0xd0;
      bytes[at + 1] = value + 0x100;
      this.length = at + 2;
    } else if (value >= -0x8000) {
      bytes[at] = 0xd1;
      this.#view.setInt16(at + 1, value);
      this.length = at + 3;
    } else if (value >= -0x8000_0000) {
      bytes[at] = 0xd2;
      this.#view.setInt32(at + 1, value);
      this.length = at + 5;
    } else {
      const high = Math.floor(value / TWO_32);
      bytes[at] = 0xd3;
      this.#view.setInt32(at + 1, high);
      this.#view.setUint32(at + 5, value - high * TWO_32);
      this.length = at + 9;
    }
  }

  bigint(value: bigint): void {
    if (value < MIN_INT64 || value > MAX_UINT64) {
      throw new NexusError('SERIALIZATION_ERROR', 'a BigInt does not fit in 64 bits');
    }
    const at = this.reserve(9);
    if (value < 0n) {
      this.bytes[at] = 0xd3;
      this.#view.setBigInt64(at + 1, value);
    } else {
      this.bytes[at] = 0xcf;
      this.#view.setBigUint64(at + 1, value);
    }
    this.length = at + 9;
  }

  string(value: string): void {
    const chars = value.length;
    if (chars <= SHORT_STRING) {
      const at = this.reserve(chars + 2);
      const { bytes } = this;
      let to = at;
      if (chars < 32) {
        bytes[to++] = 0xa0 | chars;
      } else {
        bytes[to++] = 0xd9;
        bytes[to++] = chars;
      }
      let index = 0;
      for (; index < chars; index++) {
        const unit = value.charCodeAt(index);
        if (unit >= 0x80) break;
        bytes[to++] = unit;
      }
      if (index === chars) {
        this.length = to;
        return;
      }
    }
    // Buffer writes U+FFFD for an unpaired surrogate, as SPEC 5 asks, and counts its three bytes.
    const size = Buffer.byteLength(value);
    this.#sized(size, 0xa0, 32, 0xd9, 0xda, 0xdb);
    const at = this.reserve(size);
    this.bytes.write(value, at);
    this.length = at + size;
  }

  bin(value: Uint8Array): void {
    this.#sized(value.length, 0, 0, 0xc4, 0xc5, 0xc6);
    this.raw(value);
  }

  arrayHeader(count: number): void {
    this.#sized(count, 0x90, 16, 0, 0xdc, 0xdd);
  }

  mapHeader(count: number): void {
    this.#sized(count, 0x80, 16, 0, 0xde, 0xdf);
  }

  /** `fixed` holds for counts below `fixedBelow`; a format of 0 does not exist for this type. */
  #sized(count: number, fixed: number, fixedBelow: number, format8: number, format16: number, format32: number): void {
    const at = this.reserve(5);
    const { bytes } = this;
    if (count < fixedBelow) {
      bytes[at] = fixed | count;
      this.length = at + 1;
    } else if (format8 !== 0 && count < 0x100) {
      bytes[at] = format8;
      bytes[at + 1] = count;
      this.length = at + 2;
    } else if (count < 0x10000) {
      bytes[at] = format16;
      this.#view.setUint16(at + 1, count);
      this.length = at + 3;
    } else {
      bytes[at] = format32;
      this.#view.setUint32(at + 1, count);
      this.length = at + 5;
    }
  }

  /** Lowers the count of a map whose header stands at `at` and was written for `was` entries. Same width, still valid. */
  /** For a map whose number of keys may still change. */
  wideMapHeader(count: number): void {
    const at = this.reserve(3);
    this.bytes[at] = 0xde;
    this.#view.setUint16(at + 1, count);
    this.length = at + 3;
  }

  lowerMapCount(at: number, was: number, count: number): void {
    if (was < 16) this.bytes[at] = 0x80 | count;
    else if (was < 0x10000) this.#view.setUint16(at + 1, count);
    else this.#view.setUint32(at + 1, count);
  }

  /** Timestamp extension (type -1), millisecond precision. */
  date(value: Date): void {
    const ms = value.getTime();
    if (Number.isNaN(ms)) throw new NexusError('SERIALIZATION_ERROR', 'an invalid Date cannot be sent');
    const seconds = Math.floor(ms / 1000);
    const nanos = (ms - seconds * 1000) * 1_000_000;
    const at = this.reserve(15);
    const { bytes } = this;
    if (seconds >= 0 && seconds < TWO_32 && nanos === 0) {
      bytes[at] = 0xd6;
      bytes[at + 1] = 0xff;
      this.#view.setUint32(at + 2, seconds);
      this.length = at + 6;
    } else if (seconds >= 0 && seconds < 4 * TWO_32) {
      bytes[at] = 0xd7;
      bytes[at + 1] = 0xff;
      this.#view.setUint32(at + 2, nanos * 4 + Math.floor(seconds / TWO_32));
      this.#view.setUint32(at + 6, seconds % TWO_32);
      this.length = at + 10;
    } else {
      const high = Math.floor(seconds / TWO_32);
      bytes[at] = 0xc7;
      bytes[at + 1] = 12;
      bytes[at + 2] = 0xff;
      this.#view.setUint32(at + 3, nanos);
      this.#view.setInt32(at + 7, high);
      this.#view.setUint32(at + 11, seconds - high * TWO_32);
      this.length = at + 15;
    }
  }

  /** Starts a `bin` of unknown length; everything until `endBin` is its content. */
  beginBin(): number {
    const at = this.reserve(2);
    this.length = at + 2;
    return at;
  }

  /** Small content, the common case, already stands in its place; larger content moves by one or three bytes. */
  endBin(at: number): void {
    const from = at + 2;
    const size = this.length - from;
    if (size < 0x100) {
      this.bytes[at] = 0xc4;
      this.bytes[at + 1] = size;
      return;
    }
    const shift = size < 0x10000 ? 1 : 3;
    this.reserve(shift);
    this.bytes.copyWithin(from + shift, from, from + size);
    if (shift === 1) {
      this.bytes[at] = 0xc5;
      this.#view.setUint16(at + 1, size);
    } else {
      this.bytes[at] = 0xc6;
      this.#view.setUint32(at + 1, size);
    }
    this.length += shift;
  }

  setUint32LE(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
}
