/**
 * Answers (SPEC 2 to 4): read with every rule of SPEC 1 checked, so that code behind this file deals with typed, complete values only.
 */
import { errorFromWire, HandlerError, NexusError, withoutFrames, type ErrorDetails } from './errors.js';
import { readFields } from './fields.js';
import { decodeBin } from './payload.js';
import { MalformedError, Reader } from './reader.js';
import { bin, boolean, map, string, uint, uints } from './typed.js';

/** An answer whose kind and id are known and whose fields are read by the one who asked. */
export interface Answer {
  kind: number;
  id: number;
  fields: Record<string, unknown>;
}

/** Throws MalformedError. The `bin` values stay in `bytes`. */
export function readAnswer(bytes: Buffer, start: number, end: number): Answer {
  const reader = new Reader(bytes, start, end);
  readBodyHeader(reader);
  const kind = readUint(reader, 0xff);
  const id = readUint(reader, 0xffff_ffff);
  const fields = readFields(reader);
  if (reader.at !== reader.end) throw new MalformedError('bytes behind the body');
  return { kind, id, fields };
}

function readBodyHeader(reader: Reader): void {
  const head = reader.u8();
  const size = head === 0x93 ? 3 : head === 0xdc || head === 0xdd ? reader.size(head) : 0;
  if (size !== 3) throw new MalformedError('a body is an array of three');
}

/** Any integer form that holds the value. */
function readUint(reader: Reader, max: number): number {
  const head = reader.u8();
  const value = head < 0x80 ? head : reader.integer(head);
  if (typeof value === 'bigint' || value < 0 || value > max) throw new MalformedError('kind or id out of range');
  return value;
}

export interface HelloInfo {
  /** Protocol version of the connection. */
  version: number;
  /** The sidecar's own version. */
  build: string;
  /** Digest of the guest module. */
  engine: string;
  pid: number;
  debug: boolean;
  /** What is in force, by name (SPEC 2). */
  limits: Record<string, number>;
}

export function readHello(fields: Record<string, unknown>): HelloInfo {
  return {
    version: uint(fields, 'version'),
    build: string(fields, 'build'),
    engine: string(fields, 'engine'),
    pid: uint(fields, 'pid'),
    debug: boolean(fields, 'debug'),
    limits: uints(fields, 'limits'),
  };
}

/** The error of an `error` answer or of a result. */
export function readError(value: unknown): NexusError {
  const fields = map(value, 'error');
  const details: ErrorDetails = { retryable: boolean(fields, 'retryable') };
  if (fields['name'] !== undefined) details.errorName = string(fields, 'name');
  if (fields['stack'] !== undefined) details.handlerStack = string(fields, 'stack');
  if (fields['capability'] !== undefined) details.capability = string(fields, 'capability');
  if (fields['location'] !== undefined) {
    const location = map(fields['location'], 'location');
    details.location = { line: uint(location, 'line'), column: uint(location, 'column') };
  }
  if (fields['snippet'] !== undefined) {
    const snippet = map(fields['snippet'], 'snippet');
    details.snippet = { code: string(snippet, 'code'), highlightLine: uint(snippet, 'highlightLine') };
  }
  if (fields['context'] !== undefined) {
    const context = map(fields['context'], 'context');
    for (const key of Object.keys(context)) if (typeof context[key] !== 'string') uint(context, key);
    details.context = context as Record<string, string | number>;
  }
  readInside(fields, details);
  return errorFromWire(string(fields, 'code'), string(fields, 'message'), details);
}

/** What an error carries inside: its own fields, its cause, its errors. */
function readInside(fields: Record<string, unknown>, details: Pick<ErrorDetails, 'properties' | 'cause' | 'errors'>): void {
  if (fields['properties'] !== undefined) {
    details.properties = map(decodeBin(bin(fields, 'properties')), 'properties');
  }
  if (fields['cause'] !== undefined) details.cause = readInner(fields['cause'], 'cause');
  const { errors } = fields;
  if (errors === undefined) return;
  if (!Array.isArray(errors)) throw new MalformedError('`errors` is not an array');
  details.errors = errors.map((item) => readInner(item, 'errors'));
}

/** An Error, or the value itself where it is none. */
function readInner(value: unknown, key: string): unknown {
  const fields = map(value, key);
  const message = string(fields, 'message');
  if (fields['value'] !== undefined) return decodeBin(bin(fields, 'value'));
  const details: ConstructorParameters<typeof HandlerError>[2] = {};
  if (fields['code'] !== undefined) details.code = string(fields, 'code');
  readInside(fields, details);
  const name = fields['name'] === undefined ? 'Error' : string(fields, 'name');
  return withoutFrames(() => new HandlerError(name, message, details));
}
