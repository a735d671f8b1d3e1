/**
 * Fields of an answer by their types: each throws MalformedError where the sidecar sent something else.
 */
import { Float } from './fields.js';
import { Bin, MalformedError } from './reader.js';

export function string(fields: Record<string, unknown>, key: string): string {
  const value = fields[key];
  if (typeof value !== 'string') throw new MalformedError(`\`${key}\` is not a str`);
  return value;
}

/** u16, u32, u64. */
export function uint(fields: Record<string, unknown>, key: string): number {
  const value = fields[key];
  if (typeof value !== 'number' || value < 0) throw new MalformedError(`\`${key}\` is not an unsigned integer`);
  return value;
}

export function float(fields: Record<string, unknown>, key: string): number {
  const value = fields[key];
  if (!(value instanceof Float)) throw new MalformedError(`\`${key}\` is not a float`);
  return value.value;
}

export function boolean(fields: Record<string, unknown>, key: string): boolean {
  const value = fields[key];
  if (typeof value !== 'boolean') throw new MalformedError(`\`${key}\` is not a bool`);
  return value;
}

export function bin(fields: Record<string, unknown>, key: string): Bin {
  const value = fields[key];
  if (!(value instanceof Bin)) throw new MalformedError(`\`${key}\` is not a bin`);
  return value;
}

export function strings(fields: Record<string, unknown>, key: string): string[] {
  const value = fields[key];
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string')) {
    throw new MalformedError(`\`${key}\` is not an array of str`);
  }
  return value as string[];
}

export function uints(fields: Record<string, unknown>, key: string): Record<string, number> {
  const value = map(fields[key], key);
  for (const name of Object.keys(value)) uint(value, name);
  return value as Record<string, number>;
}

export function map(value: unknown, key: string): Record<string, unknown> {
  const isMap = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isMap || value instanceof Float || value instanceof Bin) throw new MalformedError(`\`${key}\` is not a map`);
  return value as Record<string, unknown>;
}

/** An array of maps, each read by `read`. */
export function list<Item>(fields: Record<string, unknown>, key: string, read: (item: Record<string, unknown>) => Item): Item[] {
  const value = fields[key];
  if (!Array.isArray(value)) throw new MalformedError(`\`${key}\` is not an array`);
  return value.map((item: unknown) => read(map(item, key)));
}

export function oneOf<Word extends string>(fields: Record<string, unknown>, key: string, words: readonly Word[]): Word {
  const value = fields[key];
  if (!(words as readonly unknown[]).includes(value)) throw new MalformedError(`\`${key}\` is none of those known`);
  return value as Word;
}
