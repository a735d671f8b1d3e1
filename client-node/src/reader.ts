/**
 * MessagePack primitives out of a buffer: bounds are checked before every read and before anything is reserved, so any
 * bytes either decode or throw MalformedError. What the bytes mean is the business of payload.ts and messages.ts.
 */
const TWO_32 = 0x1_0000_0000;
/** Strings up to this length are first tried as ASCII in JavaScript. */
const SHORT_STRING = 24;

/** The bytes are not what they should be. Callers turn it into a NexusError that says whose fault it is. */
export class MalformedError extends Error {}

/** What a map key or a short string was last time: interned strings make objects of one shape share their layout. */
const KEY_SLOTS = 2048;
const keyCache: (string | undefined)[] = new Array<string | undefined>(KEY_SLOTS).fill(undefined);

export class Reader {
  bytes: Buffer;
  at: number;
  end: number;
  #view: DataView;

  constructor(bytes: Buffer, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.#view = viewOf(bytes);
  }

  /** The offset of the next `count` bytes, which exist. */
  take(count: number): number {
    const at = this.at;
    if (count > this.end - at) throw new MalformedError('truncated');
    this.at = at + count;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.take(1));
  }

  peek(): number {
    if (this.at >= this.end) throw new MalformedError('truncated');
    return this.bytes[this.at] as number;
  }

  u16(): number {
    return this.#view.getUint16(this.take(2));
  }

  u32(): number {
    return this.#view.getUint32(this.take(4));
  }

  i32(): number {
    return this.#view.getInt32(this.take(4));
  }

  f32(): number {
    return this.#view.getFloat32(this.take(4));
  }

  f64(): number {
    return this.#view.getFloat64(this.take(8));
  }

  i8(): number {
    return this.#view.getInt8(this.take(1));
  }

  i16(): number {
    return this.#view.getInt16(this.take(2));
  }

  /** Number where it is exact, else BigInt (SPEC 5). */
  u64(): number | bigint {
    const at = this.take(8);
    const high = this.#view.getUint32(at);
    return high <= 0x1f_ffff ? high * TWO_32 + this.#view.getUint32(at + 4) : this.#view.getBigUint64(at);
  }

  i64(): number | bigint {
    const at = this.take(8);
    const high = this.#view.getInt32(at);
    const low = this.#view.getUint32(at + 4);
    const exact = high <= 0x1f_ffff && (high > -0x20_0000 || (high === -0x20_0000 && low > 0));
    return exact ? high * TWO_32 + low : this.#view.getBigInt64(at);
  }

  /** The integer that a head byte from 0xcc to 0xd3 announces. */
  integer(head: number): number | bigint {
    switch (head) {
      case 0xcc:
        return this.u8();
      case 0xcd:
        return this.u16();
      case 0xce:
        return this.u32();
      case 0xcf:
        return this.u64();
      case 0xd0:
        return this.i8();
      case 0xd1:
        return this.i16();
      case 0xd2:
        return this.i32();
      case 0xd3:
        return this.i64();
      default:
        throw new MalformedError('not an integer');
    }
  }

  /** The length behind the head byte of a bin, ext, str, array or map of 8, 16 or 32 bits. */
  size(head: number): number {
    switch (head) {
      case 0xc4:
      case 0xc7:
      case 0xd9:
        return this.u8();
      case 0xc5:
      case 0xc8:
      case 0xda:
      case 0xdc:
      case 0xde:
        return this.u16();
      case 0xc6:
      case 0xc9:
      case 0xdb:
      case 0xdd:
      case 0xdf:
        return this.u32();
      default:
        throw new MalformedError('not a sized form');
    }
  }

  /** `count` items of at least one byte each must still fit: a hostile count cannot make us reserve or loop. */
  count(count: number, bytesEach: number): number {
    if (count * bytesEach > this.end - this.at) throw new MalformedError('truncated');
    return count;
  }

  string(size: number): string {
    const at = this.take(size);
    if (size <= SHORT_STRING) {
      const { bytes } = this;
      let text = '';
      for (let index = at; index < at + size; index++) {
        const unit = bytes[index] as number;
        if (unit >= 0x80) return bytes.toString('utf8', at, at + size);
        text += String.fromCharCode(unit);
      }
      return text;
    }
    return this.bytes.toString('utf8', at, at + size);
  }

  /** Like `string`, through the cache. */
  key(size: number): string {
    if (size === 0 || size > SHORT_STRING) return this.string(size);
    const { bytes } = this;
    const at = this.take(size);
    let hash = size;
    for (let index = at; index < at + size; index++) hash = (hash * 31 + (bytes[index] as number)) | 0;
    const slot = (hash >>> 0) % KEY_SLOTS;
    const cached = keyCache[slot];
    if (cached !== undefined && cached.length === size) {
      let index = 0;
      while (index < size && cached.charCodeAt(index) === bytes[at + index]) index++;
      // The cache holds ASCII only, so equal units mean equal bytes.
      if (index === size) return cached;
    }
    this.at = at;
    const text = this.string(size);
    if (text.length === size && isAscii(text)) keyCache[slot] = text;
    return text;
  }

  bin(size: number): Bin {
    const at = this.take(size);
    return new Bin(this.bytes, at, at + size);
  }
}

/** A bin where it lies. Making a Buffer of it costs more than reading a small one, so that is left to who needs one. */
export class Bin {
  constructor(
    readonly bytes: Buffer,
    readonly start: number,
    readonly end: number,
  ) {}

  /** A Buffer of its own, unless it is most of the memory that a view would keep alive. */
  toBuffer(): Buffer {
    const view = this.bytes.subarray(this.start, this.end);
    return view.length * 2 < view.buffer.byteLength ? Buffer.from(view) : view;
  }
}

/** Chunks of the socket are at most this large; a view of something larger is not worth keeping its memory. */
const MAX_CACHED_BYTES = 65_536;
let viewedBytes: Buffer | undefined;
let view: DataView = new DataView(new ArrayBuffer(0));

/** One chunk holds many answers and many payloads: their readers share one DataView. */
function viewOf(bytes: Buffer): DataView {
  if (bytes === viewedBytes) return view;
  const fresh = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.buffer.byteLength <= MAX_CACHED_BYTES) {
    viewedBytes = bytes;
    view = fresh;
  }
  return fresh;
}

function isAscii(text: string): boolean {
  for (let index = 0; index < text.length; index++) if (text.charCodeAt(index) >= 0x80) return false;
  return true;
}
