/**
 * The map of fields in a message (SPEC 1): control values of at most 16 levels, str keys, no key twice, valid UTF-8, no
 * extension types, a bounded number of them. nil is the same as absent and is not kept. Payloads are not decoded here: they
 * stay where they lie, as Bin.
 */
import { isUtf8 } from 'node:buffer';

import { MAX_CONTROL_DEPTH, MAX_CONTROL_VALUES } from './limits.js';
import { define } from './payload.js';
import { MalformedError, type Reader } from './reader.js';
import type { Writer } from './writer.js';

export type Fields =
  | string
  | number
  | bigint
  | boolean
  | Uint8Array
  | undefined
  | readonly Fields[]
  | { readonly [key: string]: Fields };

/** Writes control values. Absent (undefined) properties are left out, as the protocol has no nil. */
export function encodeFields(writer: Writer, value: Fields): void {
  if (typeof value === 'string') writer.string(value);
  // what is said of a request is whole where it can be: -0 is 0 there
  else if (typeof value === 'number') writer.number(value + 0);
  else if (typeof value === 'bigint') writer.bigint(value);
  else if (typeof value === 'boolean') writer.bool(value);
  else if (value instanceof Uint8Array) writer.bin(value);
  else if (Array.isArray(value)) {
    writer.arrayHeader(value.length);
    for (const item of value as readonly Fields[]) encodeFields(writer, item);
  } else if (value !== undefined) {
    const entries = Object.entries(value as { readonly [key: string]: Fields }).filter(([, item]) => item !== undefined);
    writer.mapHeader(entries.length);
    for (const [key, item] of entries) {
      writer.string(key);
      encodeFields(writer, item);
    }
  }
}

/** A float, told apart from an integer: types are meant literally. */
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** Control values that the message being read may still hold. Reading is synchronous, so one counter serves all. */
let valuesLeft = 0;

/** Reads the map of fields. Throws MalformedError. */
export function readFields(reader: Reader): Record<string, unknown> {
  valuesLeft = MAX_CONTROL_VALUES - 1;
  const head = reader.u8();
  if (head >= 0x80 && head < 0x90) return readMap(reader, head & 0x0f, 1);
  if (head === 0xde || head === 0xdf) return readMap(reader, reader.size(head), 1);
  throw new MalformedError('fields are a map');
}

function readMap(reader: Reader, size: number, depth: number): Record<string, unknown> {
  if (depth > MAX_CONTROL_DEPTH) throw new MalformedError('nested too deep');
  reader.count(size, 2);
  spend(size);
  let nils = 0;
  const fields: Record<string, unknown> = {};
  for (let index = 0; index < size; index++) {
    const key = readText(reader, reader.u8(), true);
    if (key === undefined) throw new MalformedError('a key is not a str');
    if (Object.hasOwn(fields, key)) throw new MalformedError(`key \`${key}\` twice`);
    const value = readValue(reader, depth);
    if (value === null) nils++;
    if (key === '__proto__') define(fields, key, value);
    else fields[key] = value;
  }
  // Only now, so that a key with nil counts as a key that is there twice.
  if (nils > 0) for (const key of Object.keys(fields)) if (fields[key] === null) delete fields[key];
  return fields;
}

function spend(count: number): void {
  valuesLeft -= count;
  if (valuesLeft < 0) throw new MalformedError(`more than ${MAX_CONTROL_VALUES} control values`);
}

function readArray(reader: Reader, size: number, depth: number): unknown[] {
  if (depth > MAX_CONTROL_DEPTH) throw new MalformedError('nested too deep');
  reader.count(size, 1);
  const items: unknown[] = [];
  for (let index = 0; index < size; index++) items.push(readValue(reader, depth));
  return items;
}

/** The text of a str whose head byte was read; undefined when it is none. */
function readText(reader: Reader, head: number, isKey: boolean): string | undefined {
  let size: number;
  if (head >= 0xa0 && head < 0xc0) size = head & 0x1f;
  else if (head >= 0xd9 && head <= 0xdb) size = reader.size(head);
  else return undefined;
  const at = reader.at;
  const text = isKey ? reader.key(size) : reader.string(size);
  // As many units as bytes: ASCII, or a wrong byte replaced one for one.
  const plain = text.length === size && !text.includes('\ufffd');
  if (!plain && !isUtf8(reader.bytes.subarray(at, at + size))) throw new MalformedError('invalid UTF-8');
  return text;
}

function readValue(reader: Reader, depth: number): unknown {
  spend(1);
  const head = reader.u8();
  if (head < 0x80) return head;
  if (head >= 0xe0) return head - 0x100;
  const text = readText(reader, head, false);
  if (text !== undefined) return text;
  if (head < 0x90) return readMap(reader, head & 0x0f, depth + 1);
  if (head < 0xa0) return readArray(reader, head & 0x0f, depth + 1);
  // Counters above 2^53 lose their last digits here; they are for people.
  if (head >= 0xcc && head <= 0xd3) return Number(reader.integer(head));
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
      return reader.bin(reader.size(head));
    case 0xca:
      return new Float(reader.f32());
    case 0xcb:
      return new Float(reader.f64());
    case 0xdc:
    case 0xdd:
      return readArray(reader, reader.size(head), depth + 1);
    case 0xde:
    case 0xdf:
      return readMap(reader, reader.size(head), depth + 1);
    default:
      throw new MalformedError(`format byte 0x${head.toString(16)} in control values`);
  }
}
