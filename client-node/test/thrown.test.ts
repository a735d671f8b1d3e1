/** What extensions return and throw, however odd: the handler gets it, or an error that it can catch; nothing hangs, nothing is unhandled. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { failure, newRuntime, WATCHDOG } from './sidecar.js';

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

function raise(thrown: unknown): never {
  throw thrown;
}

const cycle: { self?: unknown } = {};
cycle.self = cycle;

const RETURNED: readonly [name: string, make: () => unknown, seen: unknown][] = [
  ['undefined', () => undefined, null],
  ['a BigInt', () => 2n ** 63n, 2n ** 63n],
  ['a BigInt that is too large', () => 2n ** 70n, 'SERIALIZATION_ERROR'],
  ['a Map', () => new Map([['a', 1]]), { a: 1 }],
  ['a Map with objects as keys', () => new Map([[{}, 1]]), 'SERIALIZATION_ERROR'],
  ['a Date', () => new Date(5), new Date(5)],
  ['an invalid Date', () => new Date(NaN), 'SERIALIZATION_ERROR'],
  ['a cycle', () => cycle, 'SERIALIZATION_ERROR'],
  ['a function', () => () => 1, null],
  ['a Buffer, which is bytes', () => Buffer.from([1, 2]), Uint8Array.of(1, 2)],
  ['a promise of a Buffer', async () => Buffer.of(0xc1), Uint8Array.of(0xc1)],
  ['a getter that throws', () => ({ get x() { return raise(new Error('got')); } }), 'got'],
  ['a `then` that throws', () => ({ get then() { return raise(new Error('then')); } }), 'then'],
  ['a thenable that settles twice and throws', () => ({ then(yes: (v: number) => void) { yes(1); yes(2); raise(3); } }), 1],
  ['a revoked Proxy', revoked, /revoked/],
];

const THROWN: readonly [name: string, thrown: () => unknown, message: string][] = [
  ['a string', () => 'text', 'text'],
  ['undefined', () => undefined, 'undefined'],
  ['null', () => null, 'null'],
  ['a BigInt', () => 5n, '5'],
  ['a symbol', () => Symbol('q'), 'Symbol(q)'],
  ['an object without a text as its message', () => ({ message: 5 }), '[object Object]'],
  ['a message that throws', () => ({ get message() { return raise(new Error('inner')); } }), '[object Object]'],
  ['a name and a code that throw', () => Object.defineProperties(new Error('m'), { name: { get: () => raise(1) }, code: { get: () => raise(2) } }), 'm'],
  ['a Proxy whose traps throw', () => new Proxy({}, { get: () => raise(new Error('trap')) }), 'unknown error'],
  ['a revoked Proxy', revoked, 'unknown error'],
];

const SOURCE = `
  try { return { value: await $ext.odd.call() }; }
  catch (error) { return { code: error.code, message: error.message, from: error.extension + '.' + error.method }; }`;

interface Seen {
  value?: unknown;
  code?: string;
  message?: string;
  from?: string;
}

test('what an extension returns arrives, or fails in the handler', WATCHDOG, async () => {
  const runtime = newRuntime();
  for (const [name, call, expected] of RETURNED) {
    const { value } = await runtime.run(SOURCE, { capabilities: ['ext:*'], extensions: { odd: { call } } });
    const { value: seen, code, message, from } = value as Seen;
    if (expected instanceof RegExp) assert.match(message ?? '', expected, name);
    else assert.deepEqual(from === undefined ? seen : (code ?? message), expected, name);
    if (from !== undefined) assert.equal(from, 'odd.call', name);
  }
  await runtime.shutdown();
});

test('whatever an extension throws or rejects with is an Error in the handler', WATCHDOG, async () => {
  const runtime = newRuntime();
  for (const [name, make, expected] of THROWN) {
    for (const call of [() => raise(make()), () => Promise.reject(make())]) {
      const { value } = await runtime.run(SOURCE, { capabilities: ['ext:*'], extensions: { odd: { call } } });
      const { message, from } = value as Seen;
      assert.deepEqual([message, from], [expected, 'odd.call'], name);
    }
  }
  await runtime.shutdown();
});

test('options of a wrong kind are INVALID_ARGUMENT', WATCHDOG, async () => {
  const runtime = newRuntime();
  const wrong: unknown[] = [null, 5, [], { extensions: null }, { extensions: 'x' }, { onSegment: 5 }, { signal: {} }, { capabilities: 'ext:*' }, { timeoutMs: '5' }];
  for (const options of wrong) {
    const { code } = await failure(runtime.run('return 1', options as object));
    assert.equal(code, 'INVALID_ARGUMENT', JSON.stringify(options));
  }
  assert.equal((await runtime.run('return 1')).value, 1);
  await runtime.shutdown();
});
