/**
 * What a value would lose on its way to a handler, by its path: for callers who want to be told (`lossy: 'throw'`) instead of finding
 * it out there. Looks at what the encoder (payload.ts) would do, and changes nothing.
 *
 * The rule: a value passes if what arrives cannot be told from it, but for getters that nobody has called and for who else has it.
 */
import { types } from 'node:util';

import { NexusError } from './errors.js';
import { MAX_PAYLOAD_DEPTH } from './limits.js';
import { isPlainPrototype, standsFor } from './payload.js';

/** Throws SERIALIZATION_ERROR that names the first thing that would not arrive as what it is. `name`: what the value is called. */
export function checkLossless(name: string, value: unknown): void {
  if (value === undefined) return;
  check(value, name, 0);
}

function check(value: unknown, path: string, depth: number): void {
  switch (typeof value) {
    case 'undefined':
      throw lost(path, 'is undefined, and would become null');
    case 'function':
    case 'symbol':
      throw lost(path, `is a ${typeof value}, and would be left out`);
    case 'string':
      if (hasHalfPair(value)) throw lost(path, 'has an unpaired surrogate, which would be replaced');
      return;
    case 'bigint':
      if (BigInt.asIntN(54, value) === value && value !== -(2n ** 53n)) throw lost(path, 'is a BigInt that fits a number, and would become one');
      return;
    case 'object':
      // deeper ones, cycles, and what is no value are the encoder's to refuse
      if (value !== null && depth <= MAX_PAYLOAD_DEPTH && standsFor(value) === undefined) checkObject(value, path, depth);
  }
}

function checkObject(value: object, path: string, depth: number): void {
  if (types.isProxy(value)) throw lost(path, 'is a Proxy, and would become what it shows');
  const prototype = Object.getPrototypeOf(value) as object | null;
  if (Array.isArray(value)) {
    // that of Array, of whichever realm, is an array itself
    if (!Array.isArray(prototype)) throw becomes(path, prototype, 'array');
    for (let index = 0; index < value.length; index++) {
      if (!Object.hasOwn(value, index)) throw lost(`${path}[${index}]`, 'is a hole, and would become null');
      checkProperty(value, index, `${path}[${index}]`, depth);
    }
    return checkKeys(value, path, value.length + 1, (key) => key === 'length' || isIndex(key, value.length));
  }
  if (prototype === null || isPlainPrototype(prototype)) {
    const keys = Object.keys(value);
    for (const key of keys) checkProperty(value, key, keyed(path, key), depth);
    return checkKeys(value, path, keys.length, (key) => Object.prototype.propertyIsEnumerable.call(value, key));
  }
  if (types.isDate(value)) {
    if (Number.isNaN(Date.prototype.getTime.call(value))) throw lost(path, 'is an invalid Date');
    if (!Object.hasOwn(prototype, 'getTime')) throw becomes(path, prototype, 'Date');
    return checkKeys(value, path, 0, () => false);
  }
  if (types.isUint8Array(value)) {
    if (!Buffer.isBuffer(value) && !Object.hasOwn(prototype, 'BYTES_PER_ELEMENT')) throw becomes(path, prototype, 'Uint8Array');
    return checkKeys(value, path, value.length, (key) => isIndex(key, value.length));
  }
  // its author says what it is as a value
  const { toJSON } = value as { toJSON?: unknown };
  if (typeof toJSON === 'function') return check(Reflect.apply(toJSON, value, ['']), path, depth + 1);
  const isBytes = ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value);
  throw becomes(path, prototype, types.isSet(value) ? 'array' : isBytes ? 'Uint8Array' : 'object');
}

function checkProperty(value: object, key: string | number, path: string, depth: number): void {
  const property = Object.getOwnPropertyDescriptor(value, key);
  if (property?.get !== undefined || property?.set !== undefined) throw lost(path, 'is an accessor, and would become what it gives');
  if (property?.enumerable === false && typeof key === 'number') throw lost(path, 'is not enumerable, which would be lost');
  if (typeof key === 'string' && hasHalfPair(key)) throw lost(path, 'has an unpaired surrogate in its name, which would be replaced');
  check(property?.value, path, depth + 1);
}

/** That the object has no properties but those that are sent: `sent` of them, each of which `isSent` knows. */
function checkKeys(value: object, path: string, sent: number, isSent: (key: string) => boolean): void {
  const keys = Reflect.ownKeys(value);
  if (keys.length === sent) return;
  for (const key of keys) {
    if (typeof key === 'symbol') throw lost(path, 'has keys that are symbols, which would be left out');
    if (!isSent(key)) throw lost(keyed(path, key), 'is a property that would be left out');
  }
}

function isIndex(key: string, length: number): boolean {
  const index = Number(key);
  return String(index) === key && Number.isInteger(index) && index >= 0 && index < length;
}

function hasHalfPair(text: string): boolean {
  return /\p{Surrogate}/u.test(text);
}

function keyed(path: string, key: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

function becomes(path: string, prototype: object | null, what: string): NexusError {
  const { constructor } = (prototype ?? {}) as { constructor?: { name?: unknown } };
  const name = typeof constructor?.name === 'string' && constructor.name !== '' ? constructor.name : 'object of a class';
  return lost(path, `is a ${name}, and would become a plain ${what}`);
}

function lost(path: string, what: string): NexusError {
  return new NexusError('SERIALIZATION_ERROR', `\`${path}\` ${what}`, { context: { path } });
}
