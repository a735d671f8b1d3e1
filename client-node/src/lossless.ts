/**
 * What a value would lose on its way to a handler, by its path: for callers who want to be told (`lossy: 'throw'`) instead of finding
 * it out there. Looks at what the encoder (payload.ts) would do, and changes nothing.
 */
import { NexusError } from './errors.js';
import { MAX_PAYLOAD_DEPTH } from './limits.js';
import { standsFor } from './payload.js';

/** Throws SERIALIZATION_ERROR that names the first thing that would not arrive as what it is. `name`: what the value is called. */
export function checkLossless(name: string, value: unknown): void {
  if (value === undefined) return;
  check(value, name, 0);
}

function check(value: unknown, path: string, depth: number): void {
  if (value === undefined) throw lost(path, 'is undefined, and would become null');
  if (typeof value === 'function' || typeof value === 'symbol') throw lost(path, `is a ${typeof value}, and would be left out`);
  if (typeof value === 'string' && /\p{Surrogate}/u.test(value)) throw lost(path, 'has an unpaired surrogate, which would be replaced');
  // deeper ones, cycles, and what is no value are the encoder's to refuse
  if (typeof value !== 'object' || value === null || depth > MAX_PAYLOAD_DEPTH || standsFor(value) !== undefined) return;
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) check(value[index], `${path}[${index}]`, depth + 1);
    return;
  }
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw lost(path, 'is an invalid Date');
    return;
  }
  if (value instanceof Uint8Array || value instanceof ArrayBuffer) return;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) {
    if (Object.getOwnPropertySymbols(value).length > 0) throw lost(path, 'has keys that are symbols, which would be left out');
    for (const [key, item] of Object.entries(value)) check(item, keyed(path, key), depth + 1);
    return;
  }
  // its author says what it is as a value
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') return;
  throw lost(path, `is a ${kindOf(prototype)}, and would become a plain ${value instanceof Set ? 'array' : ArrayBuffer.isView(value) ? 'Uint8Array' : 'object'}`);
}

function keyed(path: string, key: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

function kindOf(prototype: unknown): string {
  const { constructor } = prototype as { constructor?: { name?: unknown } };
  return typeof constructor?.name === 'string' && constructor.name !== '' ? constructor.name : 'object of a class';
}

function lost(path: string, what: string): NexusError {
  return new NexusError('SERIALIZATION_ERROR', `\`${path}\` ${what}`, { context: { path } });
}
