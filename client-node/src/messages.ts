/**
 * Messages (SPEC 2 to 4): what stands in a frame. Requests are written straight into the batch buffer; answers are read
 * with every rule of SPEC 1 checked, so that code behind this file deals with typed, complete values only.
 */
import type { Arena, Region, Regions } from './arena.js';
import {
  errorFromWire,
  HandlerError,
  NexusError,
  withoutFrames,
  type ErrorDetails,
  type ExtensionError,
} from './errors.js';
import { encodeFields, readFields, type Fields } from './fields.js';
import { beginFrame } from './frames.js';
import { EXECUTE_KEYS, Kind } from './kinds.js';
import { ARENA_THRESHOLD_BYTES } from './limits.js';
import { decodeBin, writeValue } from './payload.js';
import { MalformedError, Reader } from './reader.js';
import type { ResidentUse } from './resident.js';
import { bin, boolean, map, string, uint, uints } from './typed.js';
import type { Writer } from './writer.js';

export const PROTOCOL_MAGIC = 'nexus-sidecar';
export const PROTOCOL_VERSION = 2;

/** A value to encode, or a Buffer that is a payload already. */
export type Payload = unknown;

export interface ExecuteRequest {
  source?: string | undefined;
  handler?: Uint8Array | undefined;
  panelId?: string | undefined;
  handlerName?: string | undefined;
  state?: Payload;
  /** Instead of `state`. */
  resident?: ResidentUse<any> | undefined;
  args?: Payload;
  scope?: Payload;
  capabilities?: readonly string[] | undefined;
  extensions?: Readonly<Record<string, readonly string[]>> | undefined;
  timeoutMs?: number | undefined;
  limits?: Readonly<Record<string, number>> | undefined;
  strictCapabilities?: boolean | undefined;
  suspendMode?: 'await' | 'stack' | undefined;
  seed?: number | bigint | undefined;
}

export function writeHello(writer: Writer, client: string): number {
  const at = beginFrame(writer, Kind.hello, 0);
  encodeFields(writer, { magic: PROTOCOL_MAGIC, min: PROTOCOL_VERSION, max: PROTOCOL_VERSION, client });
  return at;
}

export function writeExecute(writer: Writer, id: number, request: ExecuteRequest, arena?: Arena): number {
  const at = beginFrame(writer, Kind.execute, id);
  const out = new Payloads(writer, id, arena);
  for (const key of EXECUTE_KEYS) if (present(request[key])) out.count++;
  out.begin();
  for (const key of EXECUTE_KEYS) {
    const value = request[key];
    if (!present(value)) continue;
    if (key === 'state' || key === 'args' || key === 'scope') {
      out.write(key, value);
      continue;
    }
    writer.string(key);
    if (key === 'resident') encodeFields(writer, (value as ResidentUse<any>).fields);
    else encodeFields(writer, value as Fields);
  }
  out.end(arena?.lend(id));
  return at;
}

/** An empty Buffer is what the kernel sends for "nothing"; it is no payload. */
function present(value: unknown): boolean {
  return value !== undefined && !(Buffer.isBuffer(value) && value.length === 0);
}

function writePayload(writer: Writer, value: Payload): void {
  if (Buffer.isBuffer(value)) return writer.bin(value);
  const at = writer.beginBin();
  writeValue(writer, value);
  writer.endBin(at);
}

/**
 * A map of fields some of which are payloads. Those that are large and find a place in the arena are not written: `end`
 * writes where they are instead, and corrects the number of keys. Such maps have fewer than 16 keys: their header is a byte.
 */
class Payloads {
  count = 0;
  readonly #writer: Writer;
  readonly #id: number;
  readonly #arena: Arena | undefined;
  #header = 0;
  #regions: Regions | undefined;

  constructor(writer: Writer, id: number, arena: Arena | undefined) {
    this.#writer = writer;
    this.#id = id;
    this.#arena = arena;
  }

  begin(): void {
    this.#header = this.#writer.length;
    this.#writer.mapHeader(this.count);
  }

  write(key: string, value: Payload): void {
    const writer = this.#writer;
    const arena = this.#arena;
    if (arena !== undefined) {
      const bytes = Buffer.isBuffer(value) ? value : arena.encode(value);
      if (bytes !== undefined) {
        if (this.#moved(key, arena.put(this.#id, bytes))) return;
        writer.string(key);
        return writer.bin(bytes);
      }
    }
    const start = writer.length;
    writer.string(key);
    const from = writer.length;
    writePayload(writer, value);
    if (arena === undefined || writer.length - from < ARENA_THRESHOLD_BYTES) return;
    arena.expectLarge();
    // The header of a bin of this size has five bytes.
    if (this.#moved(key, arena.put(this.#id, writer.bytes.subarray(from + 5, writer.length)))) writer.length = start;
  }

  #moved(key: string, region: Region | undefined): boolean {
    if (region === undefined) return false;
    (this.#regions ??= {})[key] = region;
    this.count--;
    return true;
  }

  end(reply?: Region): void {
    if (reply !== undefined) (this.#regions ??= {})['reply'] = reply;
    if (this.#regions === undefined) return;
    this.count++;
    this.#writer.string('regions');
    encodeFields(this.#writer, this.#regions);
    this.#writer.lowerMapCount(this.#header, 15, this.count);
  }
}

export function writeResume(writer: Writer, id: number, suspension: string, value: Payload, arena?: Arena): number {
  const at = beginFrame(writer, Kind.resume, id);
  const out = new Payloads(writer, id, arena);
  out.count = present(value) ? 2 : 1;
  out.begin();
  writer.string('suspension');
  writer.string(suspension);
  if (present(value)) out.write('value', value);
  out.end(arena?.lend(id));
  return at;
}

export function writeResumeError(writer: Writer, id: number, suspension: string, error: ExtensionError): number {
  const at = beginFrame(writer, Kind.resume, id);
  encodeFields(writer, { suspension, error: { message: error.message, name: error.name, code: error.code } });
  return at;
}

export function writeCreateState(writer: Writer, id: number, state: Payload, arena?: Arena): number {
  const at = beginFrame(writer, Kind.createState, id);
  const out = new Payloads(writer, id, arena);
  out.count = present(state) ? 1 : 0;
  out.begin();
  if (present(state)) out.write('state', state);
  out.end();
  return at;
}

/** Always lends a place: a state may be large when no answer before it was. */
export function writeSnapshotState(writer: Writer, id: number, fields: { [key: string]: Fields }, arena?: Arena): number {
  const reply = arena?.lend(id, true);
  return writeRequest(writer, id, Kind.snapshotState, reply === undefined ? fields : { ...fields, regions: { reply } });
}

export interface PatchRequest {
  id: string;
  set?: Payload;
  delete?: readonly string[] | undefined;
  expectVersion?: number | undefined;
}

export function writePatchState(writer: Writer, id: number, patch: PatchRequest, arena?: Arena): number {
  const { set, expectVersion } = patch;
  const deleted = patch.delete;
  const at = beginFrame(writer, Kind.patchState, id);
  const out = new Payloads(writer, id, arena);
  out.count = 1 + Number(present(set)) + Number(present(deleted)) + Number(present(expectVersion));
  out.begin();
  writer.string('id');
  writer.string(patch.id);
  if (present(set)) out.write('set', set);
  if (deleted !== undefined) {
    writer.string('delete');
    encodeFields(writer, deleted);
  }
  if (expectVersion !== undefined) {
    writer.string('expectVersion');
    writer.uint(expectVersion);
  }
  out.end();
  return at;
}

/** Every other request: plain fields. */
export function writeRequest(writer: Writer, id: number, kind: number, fields: Fields): number {
  const at = beginFrame(writer, kind, id);
  encodeFields(writer, fields);
  return at;
}

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
