/**
 * Requests (SPEC 2 to 3): what a client sends. They are written straight into the batch buffer, large payloads into shared memory
 * where there is some.
 */
import type { Arena, Region, Regions } from './arena.js';
import type { ExtensionError } from './errors.js';
import { encodeFields, type Fields } from './fields.js';
import { beginFrame } from './frames.js';
import { EXECUTE_KEYS, Kind, MANY_ITEM_KEYS } from './kinds.js';
import { ARENA_THRESHOLD_BYTES, MAX_FRAME_BYTES } from './limits.js';
import { writeValue } from './payload.js';
import { Writer } from './writer.js';

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
  /** Instead of `state`: what is demanded of a resident one. */
  resident?: { readonly fields: Fields } | undefined;
  args?: Payload;
  scope?: Payload;
  capabilities?: readonly string[] | undefined;
  extensions?: Readonly<Record<string, readonly string[]>> | undefined;
  timeoutMs?: number | undefined;
  limits?: Readonly<Record<string, number>> | undefined;
  strictCapabilities?: boolean | undefined;
  suspendMode?: 'await' | 'stack' | undefined;
  seed?: number | bigint | undefined;
  streamLogs?: boolean | undefined;
}

const PAYLOADS = ['state', 'args', 'scope'] as const;

/** With payloads as they are now, for what is sent later, or may be sent again: until then the caller may have changed the values. */
export function asOfNow<Request extends Pick<ExecuteRequest, (typeof PAYLOADS)[number]>>(request: Request): Request {
  const now = { ...request };
  for (const key of PAYLOADS) {
    const value = request[key];
    if (typeof value === 'object' && value !== null) now[key] = Buffer.isBuffer(value) ? Buffer.from(value) : encodedNow(value);
  }
  return now;
}

const SCRATCH_BYTES = 4096;
/** Undefined while it is in use: a getter in a value may make a request of its own. */
let scratch: Writer | undefined = new Writer(SCRATCH_BYTES, MAX_FRAME_BYTES);

function encodedNow(value: unknown): Buffer {
  const writer = scratch ?? new Writer(SCRATCH_BYTES, MAX_FRAME_BYTES);
  scratch = undefined;
  try {
    writer.length = 0;
    writeValue(writer, value);
    const bytes = writer.written();
    return writer.bytes.length > SCRATCH_BYTES ? bytes : Buffer.from(bytes);
  } finally {
    // what is large goes to the caller
    scratch = writer.bytes.length > SCRATCH_BYTES ? new Writer(SCRATCH_BYTES, MAX_FRAME_BYTES) : writer;
  }
}

/** One execution of several: what is its own. */
export type ManyItem = Pick<ExecuteRequest, (typeof MANY_ITEM_KEYS)[number]>;

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
    if (key === 'resident') encodeFields(writer, (value as { readonly fields: Fields }).fields);
    else encodeFields(writer, value as Fields);
  }
  out.end(arena?.lend(id));
  return at;
}

/** Several executions: `items` are `count` of them, encoded by `writeManyItem`. Nothing of them goes through shared memory. */
export function writeExecuteMany(writer: Writer, id: number, common: ManyItem, count: number, items: Uint8Array): number {
  const at = beginFrame(writer, Kind.executeMany, id);
  writer.mapHeader(2);
  writer.string('common');
  writeManyItem(writer, common);
  writer.string('items');
  writer.arrayHeader(count);
  writer.raw(items);
  return at;
}

export function writeManyItem(writer: Writer, item: ManyItem): void {
  let count = 0;
  for (const key of MANY_ITEM_KEYS) if (present(item[key])) count++;
  writer.mapHeader(count);
  for (const key of MANY_ITEM_KEYS) {
    const value = item[key];
    if (!present(value)) continue;
    writer.string(key);
    if (key === 'state' || key === 'args' || key === 'scope') writePayload(writer, value);
    else if (key === 'resident') encodeFields(writer, (value as { readonly fields: Fields }).fields);
    else encodeFields(writer, value as Fields);
  }
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
 * writes where they are instead, and corrects the number of keys.
 */
class Payloads {
  count = 0;
  readonly #writer: Writer;
  readonly #id: number;
  readonly #arena: Arena | undefined;
  #header = 0;
  /** What the header was written for. */
  #size = 0;
  #regions: Regions | undefined;

  constructor(writer: Writer, id: number, arena: Arena | undefined) {
    this.#writer = writer;
    this.#id = id;
    this.#arena = arena;
  }

  begin(): void {
    this.#header = this.#writer.length;
    // `regions` may come, and shared memory may take some away
    this.#size = this.count < 15 ? this.count : 16;
    if (this.#size < 16) this.#writer.mapHeader(this.count);
    else this.#writer.wideMapHeader(this.count);
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
    this.#writer.lowerMapCount(this.#header, this.#size, this.count);
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

