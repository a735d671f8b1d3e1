/**
 * Payloads (SPEC 5): values of handlers as MessagePack, exactly as the guest sees them.
 *
 * Invariants: encoding either writes one well-formed value of at most 64 levels or throws SERIALIZATION_ERROR; decoding
 * never touches a prototype. A key `__proto__` becomes an own property, as with JSON.parse: neither lost nor harmful.
 */
import { types } from 'node:util';

import { NexusError } from './errors.js';
import { MAX_FRAME_BYTES, MAX_PAYLOAD_DEPTH } from './limits.js';
import { MalformedError, Reader, type Bin } from './reader.js';
import { Writer } from './writer.js';

/** One value as MessagePack bytes of its own. */
export function encodePayload(value: unknown): Buffer {
  const writer = new Writer(256, MAX_FRAME_BYTES);
  writeValue(writer, value);
  return writer.written();
}

/** The value of MessagePack bytes; SERIALIZATION_ERROR when they are not one well-formed value. */
export function decodePayload(bytes: Uint8Array): unknown {
  if (!(bytes instanceof Uint8Array)) throw new NexusError('INVALID_ARGUMENT', '`decodePayload` takes a Buffer or Uint8Array of MessagePack');
  const buffer = asBuffer(bytes);
  return decodeRange(buffer, 0, buffer.length);
}

/** The payload that a message carries. */
export function decodeBin(bin: Bin): unknown {
  return decodeRange(bin.bytes, bin.start, bin.end);
}

function decodeRange(bytes: Buffer, start: number, end: number): unknown {
  const reader = new Reader(bytes, start, end);
  try {
    const value = readValue(reader, 0);
    if (reader.at !== reader.end) throw new MalformedError('bytes behind the value');
    return value;
  } catch (error) {
    if (!(error instanceof MalformedError)) throw error;
    throw new NexusError('SERIALIZATION_ERROR', `not a MessagePack payload: ${error.message}`);
  }
}

/** The same memory. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * On the prototypes of objects that stand for something else and are no values themselves: what they are. By `Symbol.for`, so that
 * one of the package's other build (`import` and `require`) is known for what it is.
 */
const STANDS_FOR = Symbol.for('@nexus/sidecar.standsFor');

type StandIn = 'encoded' | 'resident';

const WHERE: Record<StandIn, string> = {
  encoded:
    'what `encoded` gives may stand for a whole `state`, `args`, `scope` or answer of an extension, and nowhere inside one; createState and patch take the Buffer itself',
  resident: 'a resident state (ResidentState, ResidentUse) may be the `state` that an execution runs on, and nothing else',
};

export function markStandIn(prototype: object, what: StandIn): void {
  Object.defineProperty(prototype, STANDS_FOR, { value: what });
}

/** What the object stands for; undefined: it is a value. */
export function standsFor(value: unknown): StandIn | undefined {
  return typeof value === 'object' && value !== null ? (value as { [STANDS_FOR]?: StandIn })[STANDS_FOR] : undefined;
}

/** MessagePack that stands for the value that it encodes. */
export class Encoded {
  static {
    markStandIn(this.prototype, 'encoded');
  }

  readonly bytes: Buffer;

  /** @internal */
  constructor(bytes: Uint8Array) {
    this.bytes = asBuffer(bytes);
  }
}

/** Says that bytes are MessagePack (of `encodePayload`, say) where they would be a value of bytes. They are read as they are when they are sent. */
export function encoded(bytes: Uint8Array): Encoded {
  if (!(bytes instanceof Uint8Array)) throw new NexusError('INVALID_ARGUMENT', '`encoded` takes a Buffer or Uint8Array of MessagePack');
  return new Encoded(bytes);
}

/** A payload as the writers of messages take it: a Buffer is MessagePack there, a Uint8Array is bytes. */
export function asPayload(value: unknown): unknown {
  if (standsFor(value) === 'encoded') return (value as Encoded).bytes;
  return Buffer.isBuffer(value) ? new Uint8Array(value.buffer, value.byteOffset, value.length) : value;
}

/** The same where a Buffer is MessagePack to the caller too. */
export function asMessagePack(value: unknown): unknown {
  return standsFor(value) === 'encoded' ? (value as Encoded).bytes : value;
}

export function writeValue(writer: Writer, value: unknown): void {
  write(writer, value, 0);
}

function write(writer: Writer, value: unknown, depth: number): void {
  switch (typeof value) {
    case 'string':
      return writer.string(value);
    case 'number':
      return writer.number(value);
    case 'boolean':
      return writer.bool(value);
    case 'bigint':
      return writer.bigint(value);
    case 'object':
      if (value === null) return writer.nil();
      // Cycles end here too.
      if (depth >= MAX_PAYLOAD_DEPTH && !isLeaf(value)) {
        throw new NexusError('SERIALIZATION_ERROR', `a value is nested deeper than ${MAX_PAYLOAD_DEPTH} levels, or is a cycle`);
      }
      return writeObject(writer, value, depth + 1);
    default:
      // undefined; and functions and symbols where no property can be dropped.
      return writer.nil();
  }
}

function writeObject(writer: Writer, value: object, depth: number): void {
  if (Array.isArray(value)) return writeArray(writer, value, depth);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return writeMap(writer, value, depth);
  // By what they are, not by whose: `instanceof` knows one realm.
  if (types.isDate(value)) return writer.date(value);
  if (ArrayBuffer.isView(value)) return writer.bin(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (types.isAnyArrayBuffer(value)) return writer.bin(new Uint8Array(value));
  if (types.isMap(value)) return writeMapObject(writer, value, depth);
  if (types.isSet(value)) return writeArray(writer, itemsOf(value), depth);
  if (isError(value)) return writeMap(writer, { name: value.name, message: value.message }, depth);
  if (types.isPromise(value)) throw new NexusError('SERIALIZATION_ERROR', 'a Promise is no value: await it');
  const standIn = standsFor(value);
  if (standIn !== undefined) throw new NexusError('INVALID_ARGUMENT', WHERE[standIn]);
  // An instance of a class is what its class says. One that returns itself ends at the depth that is allowed.
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === 'function') return write(writer, Reflect.apply(toJSON, value, ['']), depth);
  return writeMap(writer, value, depth);
}

function isLeaf(value: object): boolean {
  return types.isDate(value) || ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value);
}

/** Also one of another realm, and what inherits from one without being made as one. */
function isError(value: object): value is Error {
  return types.isNativeError(value) || value instanceof Error;
}

/** Whether it is Object.prototype, of whichever realm. */
export function isPlainPrototype(prototype: object): boolean {
  if (prototype === Object.prototype) return true;
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf');
}

function writeArray(writer: Writer, value: readonly unknown[], depth: number): void {
  // The length is read once: a getter among the items may change the array, the header has been written by then.
  const length = count(value.length);
  writer.claim(length);
  writer.arrayHeader(length);
  for (let index = 0; index < length; index++) write(writer, value[index], depth);
}

/** A Proxy may say anything. */
function count(length: unknown): number {
  const whole = Math.trunc(Number(length));
  return whole > 0 ? whole : 0;
}

/**
 * What a Set or Map holds, taken out before any of it is written, since getters in it may change it. By the built-in `forEach`: an
 * iterator of a subclass may never end.
 */
function itemsOf(value: Set<unknown>): unknown[] {
  const items: unknown[] = [];
  Set.prototype.forEach.call(value, (item) => void items.push(item));
  return items;
}

function entriesOf(value: Map<unknown, unknown>): [unknown, unknown][] {
  const entries: [unknown, unknown][] = [];
  Map.prototype.forEach.call(value, (item, key) => void entries.push([key, item]));
  return entries;
}

function writeMap(writer: Writer, value: object, depth: number): void {
  const keys = Object.keys(value);
  writer.claim(2 * keys.length);
  const at = writer.length;
  writer.mapHeader(keys.length);
  let dropped = 0;
  for (let index = 0; index < keys.length; index++) {
    const key = keys[index] as string;
    const item = (value as Record<string, unknown>)[key];
    if (typeof item === 'function' || typeof item === 'symbol') {
      dropped++;
      continue;
    }
    writer.string(key);
    write(writer, item, depth);
  }
  if (dropped > 0) writer.lowerMapCount(at, keys.length, keys.length - dropped);
}

function writeMapObject(writer: Writer, value: Map<unknown, unknown>, depth: number): void {
  const entries = entriesOf(value).filter(([, item]) => typeof item !== 'function' && typeof item !== 'symbol');
  writer.mapHeader(entries.length);
  for (const [key, item] of entries) {
    if (typeof key !== 'string' && typeof key !== 'number' && typeof key !== 'boolean' && typeof key !== 'bigint') {
      throw new NexusError('SERIALIZATION_ERROR', 'a Map has a key that is neither a string nor a number nor a boolean');
    }
    writer.string(String(key));
    write(writer, item, depth);
  }
}

function readValue(reader: Reader, depth: number): unknown {
  const head = reader.u8();
  if (head < 0x80) return head;
  if (head >= 0xe0) return head - 0x100;
  if (head >= 0xa0 && head < 0xc0) return reader.string(head & 0x1f);
  if (head < 0x90) return readMap(reader, head & 0x0f, depth);
  if (head < 0xa0) return readArray(reader, head & 0x0f, depth);
  if (head >= 0xcc && head <= 0xd3) return reader.integer(head);
  switch (head) {
    case 0xc0:
      return null;
    case 0xc2:
      return false;
    case 0xc3:
      return true;
    case 0xc4:
    case 0xc5:
    case 0xc6:
      return readBin(reader, reader.size(head));
    case 0xc7:
    case 0xc8:
    case 0xc9:
      return readExt(reader, reader.size(head));
    case 0xca:
      return reader.f32();
    case 0xcb:
      return reader.f64();
    case 0xd6:
      return readExt(reader, 4);
    case 0xd7:
      return readExt(reader, 8);
    case 0xd9:
    case 0xda:
    case 0xdb:
      return reader.string(reader.size(head));
    case 0xdc:
    case 0xdd:
      return readArray(reader, reader.size(head), depth);
    case 0xde:
    case 0xdf:
      return readMap(reader, reader.size(head), depth);
    default:
      throw new MalformedError(`format byte 0x${head.toString(16)} is not allowed`);
  }
}

function readBin(reader: Reader, size: number): Uint8Array {
  // A copy: a small value must not keep a whole chunk of the socket alive.
  const at = reader.take(size);
  return new Uint8Array(reader.bytes.subarray(at, at + size));
}

function readArray(reader: Reader, size: number, depth: number): unknown[] {
  if (depth >= MAX_PAYLOAD_DEPTH) throw new MalformedError('nested too deep');
  reader.count(size, 1);
  const items: unknown[] = [];
  for (let index = 0; index < size; index++) items.push(readValue(reader, depth + 1));
  return items;
}

function readMap(reader: Reader, size: number, depth: number): Record<string, unknown> {
  if (depth >= MAX_PAYLOAD_DEPTH) throw new MalformedError('nested too deep');
  reader.count(size, 2);
  const map: Record<string, unknown> = {};
  for (let index = 0; index < size; index++) {
    const key = readKey(reader);
    const value = readValue(reader, depth + 1);
    if (key === '__proto__') define(map, key, value);
    else map[key] = value;
  }
  return map;
}

function readKey(reader: Reader): string {
  const head = reader.peek();
  if (head >= 0xa0 && head < 0xc0) {
    reader.at++;
    return reader.key(head & 0x1f);
  }
  const key = readValue(reader, MAX_PAYLOAD_DEPTH);
  switch (typeof key) {
    case 'string':
      return key;
    case 'number':
    case 'bigint':
    case 'boolean':
      return String(key);
    default:
      throw new MalformedError('a map key is not a scalar');
  }
}

/** Assigning `__proto__` would call the accessor on Object.prototype; defining it makes a plain own property. */
export function define(target: object, key: string, value: unknown): void {
  Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true });
}

const MAX_DATE_SECONDS = 8.64e12;

function readExt(reader: Reader, size: number): Date {
  const type = reader.i8();
  if (type !== -1) throw new MalformedError(`extension type ${type} is not allowed`);
  let seconds: number;
  let nanos = 0;
  if (size === 4) {
    seconds = reader.u32();
  } else if (size === 8) {
    const high = reader.u32();
    nanos = Math.floor(high / 4);
    seconds = (high % 4) * 0x1_0000_0000 + reader.u32();
  } else if (size === 12) {
    nanos = reader.u32();
    seconds = Number(reader.i64());
  } else {
    throw new MalformedError(`a timestamp of ${size} bytes`);
  }
  if (nanos > 999_999_999 || Math.abs(seconds) > MAX_DATE_SECONDS) throw new MalformedError('timestamp out of range');
  return new Date(seconds * 1000 + Math.floor(nanos / 1_000_000));
}
