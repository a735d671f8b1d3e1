/** Payloads: SPEC 5 both ways, compared with @msgpack/msgpack where that follows the same rules. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decode as oracleDecode, encode as oracleEncode } from '@msgpack/msgpack';
import { decodePayload, encodePayload, NexusError } from '@nexus/sidecar';

import { Random, randomValue } from './random.js';

const hex = (value: unknown): string => encodePayload(value).toString('hex');
const unhex = (text: string): unknown => decodePayload(Buffer.from(text.replaceAll(' ', ''), 'hex'));
const roundTrip = (value: unknown): unknown => decodePayload(encodePayload(value));
const fails = (run: () => unknown): void => {
  assert.throws(run, (error) => error instanceof NexusError && error.code === 'SERIALIZATION_ERROR');
};

test('integers take the shortest form, also beyond 32 bits', () => {
  const forms: [number, string][] = [
    [0, '00'],
    [127, '7f'],
    [128, 'cc80'],
    [255, 'ccff'],
    [256, 'cd0100'],
    [65535, 'cdffff'],
    [65536, 'ce00010000'],
    [2 ** 32 - 1, 'ceffffffff'],
    [2 ** 32, 'cf0000000100000000'],
    [Number.MAX_SAFE_INTEGER, 'cf001fffffffffffff'],
    [-1, 'ff'],
    [-32, 'e0'],
    [-33, 'd0df'],
    [-128, 'd080'],
    [-129, 'd1ff7f'],
    [-32768, 'd18000'],
    [-32769, 'd2ffff7fff'],
    [-(2 ** 31), 'd280000000'],
    [-(2 ** 31) - 1, 'd3ffffffff7fffffff'],
    [Number.MIN_SAFE_INTEGER, 'd3ffe0000000000001'],
  ];
  for (const [value, bytes] of forms) {
    assert.equal(hex(value), bytes);
    assert.equal(unhex(bytes), value);
  }
});

test('what is no exact integer travels as float 64, minus zero included', () => {
  for (const value of [1.5, 2 ** 53, -(2 ** 53), 1e300, Infinity, -Infinity, NaN]) {
    assert.equal(hex(value).slice(0, 2), 'cb');
    assert.ok(Object.is(roundTrip(value), value));
  }
  assert.ok(Object.is(roundTrip(-0), -0));
  assert.equal(unhex('ca3fc00000'), 1.5);
});

test('64-bit integers decode to Number where it is exact, else to BigInt', () => {
  assert.equal(unhex('cf001fffffffffffff'), 2 ** 53 - 1);
  assert.equal(unhex('cf0020000000000000'), 2n ** 53n);
  assert.equal(unhex('cfffffffffffffffff'), 2n ** 64n - 1n);
  assert.equal(unhex('d3ffe0000000000001'), -(2 ** 53 - 1));
  assert.equal(unhex('d3ffe0000000000000'), -(2n ** 53n));
  assert.equal(unhex('d38000000000000000'), -(2n ** 63n));
  assert.equal(unhex('d30000000000000005'), 5);
});

test('BigInt travels in 64 bits or not at all', () => {
  for (const value of [2n ** 64n - 1n, -(2n ** 63n), 2n ** 60n]) assert.equal(roundTrip(value), value);
  assert.equal(roundTrip(5n), 5);
  fails(() => encodePayload(2n ** 64n));
  fails(() => encodePayload([-(2n ** 63n) - 1n]));
});

test('undefined becomes nil; functions and symbols are dropped from objects and nil in arrays', () => {
  assert.equal(hex(undefined), 'c0');
  assert.deepEqual(roundTrip({ a: undefined }), { a: null });
  assert.deepEqual(roundTrip({ a: 1, f() {}, s: Symbol('s'), b: 2 }), { a: 1, b: 2 });
  assert.deepEqual(roundTrip([() => 1, Symbol('s'), undefined, 1]), [null, null, null, 1]);
  assert.deepEqual(roundTrip([, 1]), [null, 1]);
});

test('dropping properties keeps maps of every header size well-formed', () => {
  for (const count of [1, 15, 16, 17, 70_000]) {
    const value: Record<string, unknown> = {};
    for (let index = 0; index < count; index++) value[`k${index}`] = index % 2 === 0 ? () => 0 : index;
    const kept = Object.fromEntries(Object.entries(value).filter(([, item]) => typeof item === 'number'));
    assert.deepEqual(roundTrip(value), kept);
  }
});

test('Date travels as timestamp, in all three sizes', () => {
  for (const ms of [0, 1000, 1, 1_700_000_000_123, 2 ** 32 * 1000, 2 ** 34 * 1000, -1, -1500, 8.64e15, -8.64e15]) {
    assert.deepEqual(roundTrip(new Date(ms)), new Date(ms));
    assert.deepEqual(oracleDecode(encodePayload(new Date(ms))), new Date(ms));
  }
  assert.equal(hex(new Date(1000)), 'd6ff00000001');
  for (const form of ['d6ff00000001', 'c704ff00000001', 'c80004ff00000001', 'c900000004ff00000001']) {
    assert.deepEqual(unhex(form), new Date(1000));
  }
  fails(() => encodePayload(new Date(NaN)));
});

test('bytes come back as Uint8Array that owns its memory', () => {
  for (const size of [0, 1, 255, 256, 65536]) {
    const bytes = new Uint8Array(size).fill(7);
    assert.deepEqual(roundTrip(bytes), bytes);
    assert.deepEqual(roundTrip(bytes.buffer), bytes);
    assert.deepEqual(roundTrip(Buffer.from(bytes)), bytes);
  }
  assert.deepEqual(roundTrip(new Uint16Array([1, 2])), new Uint8Array(new Uint16Array([1, 2]).buffer));
  const encoded = encodePayload(new Uint8Array([1, 2, 3]));
  const decoded = decodePayload(encoded) as Uint8Array;
  encoded.fill(0);
  assert.deepEqual(decoded, new Uint8Array([1, 2, 3]));
});

test('Map, Set, Error and class instances have the forms of SPEC 5', () => {
  class Point {
    x = 1;
    toJSON(): number {
      return 7;
    }
  }
  assert.deepEqual(roundTrip(new Map<unknown, unknown>([['a', 1], [2, true], [false, () => 0]])), { a: 1, 2: true });
  assert.deepEqual(roundTrip(new Set([1, 'x'])), [1, 'x']);
  assert.deepEqual(roundTrip(new TypeError('no')), { name: 'TypeError', message: 'no' });
  assert.equal(roundTrip(new Point()), 7);
  assert.deepEqual(roundTrip(new (class { x = 1; })()), { x: 1 });
  assert.deepEqual(roundTrip({ x: 1, toJSON: () => 7 }), { x: 1 });
  assert.deepEqual(roundTrip({ toJSON: 5 }), { toJSON: 5 });
  assert.deepEqual(roundTrip(Object.assign(Object.create(null) as object, { a: 1 })), { a: 1 });
  fails(() => encodePayload(new Map([[{}, 1]])));
});

test('unpaired surrogates become U+FFFD, in short strings, long strings and keys', () => {
  for (const text of ['\ud800', 'x\udc00y', '\ud800'.repeat(50), `${'y'.repeat(100)}\ud800`]) {
    assert.equal(roundTrip(text), text.toWellFormed());
    assert.deepEqual(roundTrip({ [text]: 1 }), { [text.toWellFormed()]: 1 });
  }
  for (const text of ['', 'a', 'ä', '日本語', '👍', '👍'.repeat(300), 'a'.repeat(31), 'a'.repeat(32), 'ä'.repeat(20), 'a'.repeat(70_000)]) {
    assert.equal(roundTrip(text), text);
    assert.deepEqual(encodePayload(text), Buffer.from(oracleEncode(text)));
  }
});

test('a key __proto__ is an own property on both ways and pollutes nothing', () => {
  const hostile = JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}}') as object;
  const back = roundTrip(hostile) as Record<string, unknown>;
  assert.equal(Object.getPrototypeOf(back), Object.prototype);
  assert.deepEqual(Object.keys(back), ['__proto__', 'constructor']);
  assert.deepEqual(Object.getOwnPropertyDescriptor(back, '__proto__')?.value, { polluted: true });
  assert.equal((back as { polluted?: boolean }).polluted, undefined);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

test('scalar map keys become strings; others are refused', () => {
  assert.deepEqual(unhex('83 01a161 c3a162 cb3ff8000000000000a163'), { 1: 'a', true: 'b', '1.5': 'c' });
  for (const key of ['c0', '90', '80', 'c400', 'd6ff00000001']) fails(() => unhex(`81${key}01`));
});

test('64 levels travel, 65 and cycles do not', () => {
  const nested = (levels: number): unknown => {
    let value: unknown = 1;
    for (let level = 0; level < levels; level++) value = level % 2 === 0 ? [value] : { v: value };
    return value;
  };
  assert.deepEqual(roundTrip(nested(64)), nested(64));
  fails(() => encodePayload(nested(65)));
  fails(() => decodePayload(Buffer.from('91'.repeat(65) + '01', 'hex')));
  fails(() => decodePayload(Buffer.from('91'.repeat(1_000_000), 'hex')));
  const cycle: unknown[] = [];
  cycle.push(cycle);
  fails(() => encodePayload(cycle));
});

test('bytes that are not one value are refused', () => {
  const bad = ['', '92 01', '01 01', 'c1', 'd40500', 'd5ff0000', 'd8' + 'ff'.repeat(17), 'c70000', 'c705ff0000000000', 'd9', 'd905ff',
    'dd ffffffff', 'df ffffffff', 'dbffffffff', 'c6ffffffff', 'cb00', '81a161', 'd7ffffffffff00000000'];
  for (const text of bad) fails(() => unhex(text));
});

test('truncated and mutated bytes either decode or are refused, and never reach a prototype', () => {
  const random = new Random(7);
  for (let round = 0; round < 300; round++) {
    const bytes = encodePayload(randomValue(random, 4));
    const mutant = Buffer.from(bytes.subarray(0, random.below(bytes.length + 1)));
    for (let flips = random.below(4); flips > 0 && mutant.length > 0; flips--) {
      mutant[random.below(mutant.length)] = random.below(256);
    }
    try {
      decodePayload(mutant);
    } catch (error) {
      assert.ok(error instanceof NexusError && error.code === 'SERIALIZATION_ERROR', String(error));
    }
  }
  assert.deepEqual(Object.keys(Object.prototype), []);
});

test('random values survive, and agree with @msgpack/msgpack both ways', () => {
  const random = new Random(42);
  for (let round = 0; round < 500; round++) {
    const value = randomValue(random, 5);
    const bytes = encodePayload(value);
    assert.deepEqual(decodePayload(bytes), value);
    // Given a Buffer, the oracle makes Buffers of bin values.
    assert.deepEqual(oracleDecode(new Uint8Array(bytes)), value);
    assert.deepEqual(decodePayload(oracleEncode(value)), value);
  }
});

test('a getter that changes its object or array while it is encoded cannot break the bytes', () => {
  const list: unknown[] = [1, 2, 3];
  Object.defineProperty(list, 0, { enumerable: true, configurable: true, get: () => (list.length = 1) });
  assert.deepEqual(roundTrip(list), [1, null, null]);
  const map = { get a() { delete (map as { b?: number }).b; return 1; }, b: 2 };
  assert.deepEqual(roundTrip(map), { a: 1, b: null });
});

test('a value that says it is larger than a request may be is refused before any of it is read', () => {
  const tooLarge = (value: unknown): void => {
    assert.throws(() => encodePayload(value), (error) => error instanceof NexusError && /larger than a request may be: 67108864 bytes/.test(error.message));
  };
  let reads = 0;
  const claims = (length: unknown): unknown[] =>
    new Proxy([] as unknown[], {
      get: (target, key) => {
        if (key === 'length') return length;
        if (typeof key === 'string') reads++;
        return Reflect.get(target, key) as unknown;
      },
    });
  const sparse: number[] = [];
  sparse[2 ** 29] = 1;
  for (const length of [2 ** 26 + 1, 2 ** 32 - 1, 2 ** 53, Infinity]) for (const value of [claims(length), { a: [claims(length)] }]) tooLarge(value);
  tooLarge(sparse);
  tooLarge([[1], { k: sparse }]);
  assert.equal(reads, 0);
  for (const length of [-1, NaN, '2', 1.5, undefined]) {
    const decoded = decodePayload(encodePayload(claims(length)));
    assert.equal((decoded as unknown[]).length, Math.max(0, Math.trunc(Number(length)) || 0));
  }
  class Endless extends Set<number> {
    override *[Symbol.iterator](): SetIterator<number> {
      for (;;) yield 0;
    }
  }
  assert.deepEqual(roundTrip([new Endless([5]), new Map([['k', 1]])]), [[5], { k: 1 }]);
});
