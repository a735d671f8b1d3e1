/** The vectors of protocol/golden: the same files that the Rust side reads. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { decodePayload, encodePayload, HandlerError, NexusError } from '@nexus/sidecar';
import { Float } from '../dist/esm/fields.js';
import { endFrame, FrameSplitter } from '../dist/esm/frames.js';
import { Kind } from '../dist/esm/kinds.js';
import { readExecutionList, readHandlerCheck } from '../dist/esm/maps.js';
import { readAnswer, readError, readHello, type Answer } from '../dist/esm/answers.js';
import { writeCreateState, writeExecute, writeHello, writePatchState, writeRequest, writeResume, writeResumeError } from '../dist/esm/requests.js';
import { Bin, MalformedError } from '../dist/esm/reader.js';
import { readCreated, readDisposed, readSnapshot } from '../dist/esm/resident.js';
import { readBufferResult, readHandle, readLogs, readPlainResult, readStats } from '../dist/esm/results.js';
import { list } from '../dist/esm/typed.js';
import { Writer } from '../dist/esm/writer.js';

const folder = new URL('../../protocol/golden/', import.meta.url);
const MAX = 64 * 1024 * 1024;

interface Vector {
  name: string;
  bytes: Buffer;
  sort: string;
  canonical?: boolean;
  direction?: string;
  kind: number;
  id: number;
  fields: Record<string, unknown>;
  value?: unknown;
  reason?: string;
  frames: number[];
  end: string;
  maxFrameBytes: number;
}

const vectors: Vector[] = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((file) => {
    const name = file.slice(0, -'.json'.length);
    const hex = readFileSync(new URL(`${name}.hex`, folder), 'utf8').replace(/\s/g, '');
    const meaning = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as Omit<Vector, 'name' | 'bytes'>;
    return { ...meaning, name, bytes: Buffer.from(hex, 'hex') };
  });

function ofSort(sort: string): Vector[] {
  const found = vectors.filter((vector) => vector.sort === sort);
  assert.ok(found.length > 10, `${found.length} vectors of sort ${sort}`);
  return found;
}

/** The JavaScript value that the JSON of a vector stands for. */
function meant(json: unknown, control: boolean): unknown {
  if (typeof json !== 'object' || json === null) return json;
  if (Array.isArray(json)) return json.map((item) => meant(item, control));
  const entries = Object.entries(json as Record<string, unknown>);
  const [key, value] = entries[0] ?? [];
  switch (key) {
    case '$bin':
      return control ? Buffer.from(value as string, 'hex') : new Uint8Array(Buffer.from(value as string, 'hex'));
    case '$bigint':
    case '$int':
      return BigInt(value as string);
    case '$number':
      return value === '-0' ? -0 : Number(value);
    case '$date':
      return new Date(value as number);
    case '$nested':
      return nested(value as number);
    case '$map':
      return fromEntries((value as [string, unknown][]).map(([name, item]) => [name, meant(item, control)]));
    default:
      return fromEntries(entries.map(([name, item]) => [name, meant(item, control)]));
  }
}

function fromEntries(entries: [string, unknown][]): object {
  return Object.fromEntries(entries); // defines, so a key __proto__ is an own property
}

function nested(levels: number): unknown {
  let value: unknown = [];
  for (let level = 1; level < levels; level++) value = [value];
  return value;
}

/** What was read, in the form of `meant`: nil under a key is no key, and counters beyond 2^53 are for people. */
function plain(value: unknown): unknown {
  if (value instanceof Bin) return Buffer.from(value.toBuffer());
  if (value instanceof Float) return value.value;
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'bigint') return Number(value);
  if (typeof value !== 'object' || value === null || Buffer.isBuffer(value)) return value;
  return fromEntries(Object.entries(value).flatMap(([key, item]) => (item === null ? [] : [[key, plain(item)] as [string, unknown]])));
}

/** `$nested` arrays end in an empty array or in nil. */
function withoutInnermost(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value).replace('[null]', '[]').replace('[[]]', '[]')) as unknown;
}

function read({ bytes }: Vector): Answer {
  assert.equal(bytes.readUInt32LE(0), bytes.length - 4);
  return readAnswer(bytes, 4, bytes.length);
}

test('every message of either direction decodes to what it means', () => {
  for (const vector of ofSort('message')) {
    const { kind, id, fields } = read(vector);
    assert.deepEqual({ kind, id }, { kind: vector.kind, id: vector.id }, vector.name);
    const expected = plain(meant(vector.fields, true));
    if (JSON.stringify(vector.fields).includes('$nested')) assert.deepEqual(withoutInnermost(plain(fields)), withoutInnermost(expected), vector.name);
    else assert.deepEqual(plain(fields), expected, vector.name);
  }
});

test('every answer of a sidecar is accepted by its typed reader', () => {
  const readers: Record<number, (fields: Record<string, unknown>) => unknown> = {
    [Kind.helloAnswer]: readHello,
    [Kind.result]: (fields) => [readPlainResult(fields), readBufferResult(fields)],
    [Kind.compiled]: readHandle,
    [Kind.done]: (fields) => assert.equal(typeof fields['cancelled'], 'boolean'),
    [Kind.checked]: readHandlerCheck,
    [Kind.statsAnswer]: readStats,
    [Kind.metricsAnswer]: (fields) => assert.equal(typeof fields['text'], 'string'),
    [Kind.arena]: (fields) => assert.equal(typeof fields['generation'], 'number'),
    [Kind.stateCreated]: readCreated,
    [Kind.statePatched]: (fields) => assert.equal(typeof fields['version'], 'number'),
    [Kind.stateSnapshot]: (fields) => (fields['regions'] === undefined ? readSnapshot(fields) : undefined),
    [Kind.stateDisposed]: readDisposed,
    [Kind.executionsAnswer]: readExecutionList,
    [Kind.pong]: (fields) => assert.deepEqual(fields, {}),
    [Kind.results]: (fields) => list(fields, 'results', readPlainResult),
    [Kind.logs]: readLogs,
    [Kind.error]: (fields) => readError(fields['error']),
  };
  const seen = new Set<number>();
  for (const vector of ofSort('message').filter(({ direction }) => direction === 'sidecar')) {
    const { kind, fields } = read(vector);
    const reader = readers[kind];
    assert.ok(reader !== undefined, vector.name);
    assert.doesNotThrow(() => reader(fields), vector.name);
    seen.add(kind);
  }
  assert.deepEqual([...seen].sort(), Object.keys(readers).map(Number).sort());
});

// shows P-unknown-code
test('a full result and a full error have their values', () => {
  const result = readPlainResult(read(byName('message-result-full')).fields);
  assert.deepEqual(result.returnValue, { ok: true });
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'user', value: { name: 'Ada' } }, { op: 'delete', key: 'draft' }]);
  assert.deepEqual(result.viewCommands.map(({ command }) => command), ['setFilter', 'scrollTo', 'focus']);
  const failed = readPlainResult(read(byName('message-result-error')).fields);
  assert.deepEqual(failed.error?.location, { line: 3, column: 14 });
  assert.deepEqual(failed.error?.context, { resource: 'hostCalls', limit: 10 });
  assert.equal(failed.error?.errorName, 'TypeError');
  assert.equal(failed.error?.snippet?.highlightLine, 3);
  assert.deepEqual(failed.error?.properties, { code: 'E_TOP', tries: 3 });
  const cause = failed.error?.cause;
  assert.ok(cause instanceof HandlerError);
  assert.deepEqual([cause.name, cause.message, cause.code, cause.stack], ['LoadError', 'cannot load', 'E_LOAD', 'LoadError: cannot load']);
  assert.deepEqual(cause.properties, { code: 'E_LOAD', status: 503 });
  assert.deepEqual(cause.cause, { id: 7 });
  const several = readError(read(byName('message-error-with-errors')).fields['error']).errors ?? [];
  assert.deepEqual(several.map((error) => (error instanceof Error ? `${error.name}: ${error.message}` : error)), [
    'TypeError: first', 42, 'Error: a symbol was thrown',
  ]);
  assert.equal(readError(read(byName('message-error-unknown-code')).fields['error']).code, 'INTERNAL_ERROR');
  const waiting = readBufferResult(read(byName('message-result-suspended')).fields);
  assert.equal(waiting.suspension, waiting.suspensions[0]);
  assert.deepEqual(waiting.suspensions.map(({ args }) => decodePayload(args)), [['/'], []]);
});

function byName(name: string): Vector {
  const vector = vectors.find((candidate) => candidate.name === name);
  assert.ok(vector !== undefined, name);
  return vector;
}

test('our requests are the canonical ones: same fields, same number of bytes', () => {
  let checked = 0;
  for (const vector of ofSort('message')) {
    if (vector.direction !== 'client' || vector.canonical !== true) continue;
    const writer = new Writer(64, MAX);
    const fields = meant(vector.fields, true) as Record<string, never>;
    endFrame(writer, write(writer, vector, fields), MAX);
    const bytes = writer.written();
    assert.equal(bytes.length, vector.bytes.length, vector.name);
    assert.deepEqual(plain(readAnswer(bytes, 4, bytes.length)), plain(read(vector)), vector.name);
    checked++;
  }
  assert.ok(checked > 10, `${checked}`);
});

function write(writer: Writer, { kind, id }: Vector, fields: Record<string, never>): number {
  // Where something lies in shared memory is chosen by the arena.
  if (fields['regions'] !== undefined) return writeRequest(writer, id, kind, fields);
  switch (kind) {
    case Kind.hello:
      return writeHello(writer, fields['client'] ?? '');
    case Kind.execute:
      return writeExecute(writer, id, fields['resident'] === undefined ? fields : { ...fields, resident: { fields: fields['resident'] } as never });
    case Kind.createState:
      return writeCreateState(writer, id, fields['state']);
    case Kind.patchState:
      return writePatchState(writer, id, { id: '', ...fields });
    case Kind.resume:
      return fields['error'] === undefined
        ? writeResume(writer, id, fields['suspension'] ?? '', fields['value'])
        : writeResumeError(writer, id, fields['suspension'] ?? '', fields['error']);
    default:
      return writeRequest(writer, id, kind, fields);
  }
}

/** Rejections for reasons that hold for frames of both directions. The others are about what a request must have. */
const GENERIC = /^rejection-(body|bin|str|claims|depth|ext|fields|key|never-used|too-many-values|utf8|id-(2-32|float|negative|nil)|kind-(256|negative|text))/;

test('what no frame may be is malformed here too', () => {
  const generic = ofSort('rejection').filter(({ name }) => GENERIC.test(name));
  assert.ok(generic.length > 40, `${generic.length}`);
  for (const { name, bytes } of generic) {
    assert.throws(() => readAnswer(bytes, 4, bytes.length), MalformedError, name);
  }
});

test('streams come apart at the right places, and lengths that no frame may have end them', () => {
  for (const { name, bytes, frames, end, maxFrameBytes } of ofSort('stream')) {
    for (const step of [bytes.length || 1, 1]) {
      const lengths: number[] = [];
      const splitter = new FrameSplitter(maxFrameBytes, (_, from, to) => lengths.push(to - from));
      const pushAll = (): void => {
        for (let at = 0; at < bytes.length; at += step) splitter.push(bytes.subarray(at, at + step));
      };
      if (end === 'empty' || end === 'too-large') {
        assert.throws(pushAll, (error) => error instanceof NexusError && error.code === 'PROTOCOL_ERROR', name);
      } else {
        assert.ok(end === 'boundary' || end === 'incomplete', end);
        pushAll();
      }
      assert.deepEqual(lengths, frames, name);
    }
  }
});

test('payloads decode to what the handler sees, and canonical ones encode to the same bytes', () => {
  for (const { name, bytes, value: json, canonical } of ofSort('payload')) {
    const value = decodePayload(bytes);
    const isNested = JSON.stringify(json).includes('$nested');
    const expected = meant(json, false);
    if (isNested) assert.deepEqual(withoutInnermost(value), withoutInnermost(expected), name);
    else assert.deepEqual(value, expected, name);
    if (canonical !== true) continue;
    assert.deepEqual(encodePayload(value), bytes, name);
    if (!isNested) assert.deepEqual(decodePayload(encodePayload(expected)), value, name);
  }
});

test('what is no payload is refused', () => {
  for (const { name, bytes, reason } of ofSort('payload-rejection')) {
    if (reason === 'utf8') continue; // strings of a payload decode leniently, as SPEC 5 lets a reader
    assert.throws(() => decodePayload(bytes), (error) => error instanceof NexusError && error.code === 'SERIALIZATION_ERROR', name);
  }
});
