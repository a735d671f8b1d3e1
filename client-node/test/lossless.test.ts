/** `lossy: 'throw'`: whatever would not arrive as what it is, is told; and values of other realms are what they are. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { createContext, runInContext } from 'node:vm';

import { decodePayload, encodePayload } from '@nexus/sidecar';

import { failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime();
after(() => runtime.shutdown());

const realm = createContext({});
const elsewhere = (code: string): unknown => runInContext(`(${code})`, realm);

function withProperty<Target extends object>(target: Target, key: PropertyKey, property: PropertyDescriptor = { value: 1, enumerable: true }): Target {
  return Object.defineProperty(target, key, property);
}

class List extends Array<number> {}
class Day extends Date {}
class Bytes extends Uint8Array {}
class Point { x = 1 }
class Told { toJSON(): unknown { return { inside: new Map() } } }

test('each kind of loss is told, with its path', WATCHDOG, async () => {
  const symbol = Symbol('s');
  const lost: [unknown, string][] = [
    [{ a: undefined }, 'args.a'],
    [{ a: () => 1 }, 'args.a'],
    [[symbol], 'args[0]'],
    ['\ud800', 'args'],
    [{ '\ud800': 1 }, 'args["\\ud800"]'],
    [5n, 'args'],
    [-(2n ** 53n) + 1n, 'args'],
    [[1, , 2], 'args[1]'],
    [withProperty([1], 'name'), 'args.name'],
    [withProperty([1], symbol), 'args'],
    [withProperty([1], -1), 'args["-1"]'],
    [withProperty(new Date(0), 'zone'), 'args.zone'],
    [withProperty(new Date(0), symbol), 'args'],
    [withProperty(new Uint8Array(2), 'name'), 'args.name'],
    [withProperty({}, symbol), 'args'],
    [withProperty({}, 'hidden', { value: 1 }), 'args.hidden'],
    [withProperty({}, 'got', { get: () => 1, enumerable: true }), 'args.got'],
    [{ list: withProperty([1, 2], 1, { get: () => 1, enumerable: true }) }, 'args.list[1]'],
    [withProperty([1], 0, { value: 1, enumerable: false }), 'args[0]'],
    [Object.create({ inherited: 1 }), 'args'],
    [List.of(1), 'args'],
    [new Day(0), 'args'],
    [new Date(NaN), 'args'],
    [new Bytes(1), 'args'],
    [new Float64Array(1), 'args'],
    [new DataView(new ArrayBuffer(1)), 'args'],
    [new ArrayBuffer(1), 'args'],
    [new Map(), 'args'],
    [new Set(), 'args'],
    [new Error('e'), 'args'],
    [/x/, 'args'],
    [new Point(), 'args'],
    [new Number(1), 'args'],
    [new Proxy({}, {}), 'args'],
    [new Proxy([], {}), 'args'],
    [{ told: new Told() }, 'args.told.inside'],
    [Promise.resolve(1), 'args'],
    [{ deep: [{ deeper: new Map() }] }, 'args.deep[0].deeper'],
    [elsewhere('new Map()'), 'args'],
    [elsewhere('new (class extends Date {})(0)'), 'args'],
    [elsewhere('Object.assign([1], { more: 1 })'), 'args.more'],
  ];
  for (const [args, path] of lost) {
    const error = await failure(runtime.run('return 1', { args, lossy: 'throw' }));
    assert.deepEqual([error.code, error.context?.['path']], ['SERIALIZATION_ERROR', path], error.message);
  }
});

test('what passes arrives as what it is', WATCHDOG, async () => {
  const kept: unknown[] = [
    null, true, -0, NaN, 1.5, 'text \u{1f600}', 2n ** 53n, -(2n ** 60n), [], {}, [[]], { a: { b: [1, 'x', null] } }, new Date(1.7e12),
    new Uint8Array([1, 2]), Object.assign(Object.create(null), { a: 1 }), JSON.parse('{"__proto__": 1}'), Object.freeze({ a: 1 }),
    elsewhere('{ a: [1, { b: 2 }] }'), elsewhere('[1, [2]]'), elsewhere('new Date(5)'), elsewhere('new Uint8Array([7])'),
  ];
  for (const args of kept) {
    const { value } = await runtime.run('return $args', { args, lossy: 'throw' });
    // by what is sent: objects of another realm differ in their prototypes alone
    assert.deepEqual(encodePayload(value), encodePayload(args));
  }
});

test('values of another realm are sent as those of this one', WATCHDOG, async () => {
  const pairs: [string, unknown][] = [
    ['new Date(5)', new Date(5)],
    ['new Map([["a", new Set([1])]])', { a: [1] }],
    ['new TypeError("no")', { name: 'TypeError', message: 'no' }],
    ['Object.assign(new RangeError("far"), { more: 1 })', { name: 'RangeError', message: 'far' }],
    ['new Uint8Array([1, 2])', new Uint8Array([1, 2])],
    ['new Uint16Array([1]).buffer', new Uint8Array([1, 0])],
    ['new DataView(new ArrayBuffer(2))', new Uint8Array(2)],
    ['new SharedArrayBuffer(1)', new Uint8Array(1)],
    ['{ a: [null, { b: 1 }] }', { a: [null, { b: 1 }] }],
    ['new (class { toJSON() { return "said" } })()', 'said'],
  ];
  for (const [code, expected] of pairs) assert.deepEqual(decodePayload(encodePayload(elsewhere(code))), expected, code);
  const { value } = await runtime.run('return [$args instanceof Date, $state.m.a]', {
    args: elsewhere('new Date(0)'),
    state: elsewhere('{ m: new Map([["a", 1]]) }'),
    capabilities: elsewhere('["state:read:m"]') as string[],
  });
  assert.deepEqual(value, [true, 1]);
});
