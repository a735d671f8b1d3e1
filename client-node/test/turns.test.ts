/** Who is sent when: the window of requests, the places of what may be suspended, the lines of those that wait. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Places } from '../dist/esm/places.js';
import { Waiting } from '../dist/esm/waiting.js';
import { Window } from '../dist/esm/window.js';

import { ALL, newRuntime, WATCHDOG } from './sidecar.js';

test('the window grows while requests are begun at once, and only when more would be sent', () => {
  const window = new Window();
  window.open(1024, 5000);
  const start = window.size;
  for (let i = 0; i < 5000; i++) window.answered(0.5, false);
  assert.equal(window.size, start);
  for (let i = 0; i < 5000; i++) window.answered(0.5, true);
  assert.equal(window.size, 1024 - 32);
  for (let i = 0; i < 5000; i++) window.answered(300, true);
  assert.equal(window.size, start);
});

test('the window forgets what it knew of other handlers when nothing is left, and never allows more than the sidecar', () => {
  const window = new Window();
  window.open(1024, 5000);
  const start = window.size;
  for (let i = 0; i < 500; i++) window.answered(0, true);
  assert.ok(window.size > start);
  window.rest();
  assert.equal(window.size, start);
  for (const [maxInFlight, most] of [[0, 1], [1, 1], [4, 3], [20, 15]] as const) {
    window.open(maxInFlight, 0);
    for (let i = 0; i < 100; i++) window.answered(i % 2, true);
    assert.equal(window.size, most);
  }
});

test('what waits in the sidecar waits no longer than a small part of its time limit', () => {
  const window = new Window();
  window.open(1024, 20);
  const start = window.size;
  for (let i = 0; i < 100; i++) window.answered(1, true);
  assert.equal(window.size, start);
});

test('a place is taken once, and what it leaves is told', () => {
  let freed = 0;
  const places = new Places(60_000, () => void freed++);
  places.open(2, 30_000);
  const [a, b, c] = [{ round: 0 }, { round: 0 }, { round: 0 }];
  assert.deepEqual([a, a, b, c].map((place) => places.take(place)), [true, true, true, false]);
  places.leave(c);
  assert.equal(freed, 0);
  places.leave(a);
  places.leave(a);
  assert.equal(freed, 1);
  assert.deepEqual([c, a].map((place) => places.take(place)), [true, false]);
  places.close();
});

test('a sidecar that does not say how many may be suspended has places for all', () => {
  const places = new Places(60_000, () => undefined);
  places.open(undefined, 30_000);
  assert.ok(Array.from({ length: 5000 }, () => places.take({ round: 0 })).every(Boolean));
});

test('those that wait: what goes on first, then in the order of the calls, passing over who needs a place', () => {
  const waiting = new Waiting();
  const frame = (id: number): Buffer => Buffer.of(id);
  const place = { round: 0 };
  waiting.add(1, frame(1), { place });
  waiting.add(2, frame(2), {});
  waiting.add(3, frame(3), { continues: true });
  waiting.add(4, frame(4), { place });
  waiting.add(5, frame(5), {});
  assert.deepEqual([waiting.size, waiting.bytes, waiting.forPlaces], [5, 5, true]);
  assert.equal(waiting.next(() => false)?.[0], 3);
  assert.equal(waiting.next(() => false)?.[0], 2);
  assert.equal(waiting.next(() => true)?.[0], 1);
  assert.equal(waiting.take(5)?.[0], 5);
  assert.equal(waiting.next(() => false), undefined);
  assert.equal(waiting.next(() => true)?.[0], 4);
  assert.deepEqual([waiting.size, waiting.bytes, waiting.forPlaces], [0, 0, false]);
});

test('three times as many runs with calls as may be suspended all come back, with the default configuration', { timeout: 600_000 }, async () => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  const extensions = { a: { b: async (n: number) => { await new Promise((resolve) => setTimeout(resolve, 50)); return n; } } };
  const runs = Array.from({ length: 3000 }, (_, args) => runtime.run('return 1 + await $ext.a.b($args)', { args, capabilities: ALL, extensions }));
  const values = (await Promise.all(runs)).map(({ value }) => value);
  assert.deepEqual(values, Array.from({ length: 3000 }, (_, n) => n + 1));
  await runtime.shutdown();
});

test('runs that wait for runs of their own, with every place taken, end when their suspensions do', WATCHDOG, async () => {
  const runtime = newRuntime({ maxSuspended: 2, suspensionTimeoutMs: 2000 });
  const extensions = { a: { run: async () => (await runtime.run('return await $ext.a.one()', { capabilities: ALL, extensions })).value, one: () => 1 } };
  const outcomes = await Promise.all(
    Array.from({ length: 4 }, () => runtime.run('return await $ext.a.run()', { capabilities: ALL, extensions }).then(({ value }) => value, ({ code }) => code)),
  );
  // Whose own run failed sees that as an error of its extension.
  const ends = [1, 'SUSPENSION_ERROR', 'RESOURCE_LIMIT', 'EXECUTION_ERROR'];
  assert.ok(outcomes.every((outcome) => ends.includes(outcome as string)), String(outcomes));
  assert.equal((await runtime.run('return await $ext.a.one()', { capabilities: ALL, extensions })).value, 1);
  await runtime.shutdown();
});

test('a run that is aborted while it waits for a place leaves none taken', WATCHDOG, async () => {
  const runtime = newRuntime({ maxSuspended: 1 });
  await runtime.start();
  const never = new AbortController();
  const stuck = { a: { b: () => new Promise(() => undefined) } };
  const run = (signal: AbortSignal): Promise<unknown> =>
    runtime.run('return await $ext.a.b()', { capabilities: ALL, extensions: stuck, signal }).catch(({ code }) => code);
  const first = run(never.signal);
  const later = new AbortController();
  const second = run(later.signal);
  later.abort();
  assert.equal(await second, 'CANCELLED');
  never.abort();
  assert.equal(await first, 'CANCELLED');
  const one = { a: { b: () => 1 } };
  for (let i = 0; i < 3; i++) assert.equal((await runtime.run('return await $ext.a.b()', { capabilities: ALL, extensions: one })).value, 1);
  await runtime.shutdown();
});

/** What emptying costs in steps that a longer line could make more of: no clock, since a machine may be busy. */
function steps(work: () => void): number {
  let count = 0;
  const { has, keys, values, entries, forEach } = Map.prototype;
  const iterate = Map.prototype[Symbol.iterator];
  const { slice, shift, splice, indexOf } = Array.prototype;
  const whole = <Args extends unknown[], Result>(method: (...args: Args) => Result, size: (of: never) => number) =>
    function (this: never, ...args: Args): Result {
      count += size(this);
      return method.apply(this, args);
    };
  const ofMap = { keys: whole(keys, mapSize), values: whole(values, mapSize), entries: whole(entries, mapSize), forEach: whole(forEach, mapSize), [Symbol.iterator]: whole(iterate, mapSize) };
  const ofArray = { slice: whole(slice, arraySize), shift: whole(shift, arraySize), splice: whole(splice as never, arraySize), indexOf: whole(indexOf as never, arraySize) };
  Object.assign(Map.prototype, ofMap, { has: whole(has, () => 1) });
  Object.assign(Array.prototype, ofArray);
  try {
    work();
  } finally {
    Object.assign(Map.prototype, { has, keys, values, entries, forEach, [Symbol.iterator]: iterate });
    Object.assign(Array.prototype, { slice, shift, splice, indexOf });
  }
  return count;
}

const mapSize = (map: Map<unknown, unknown>): number => map.size;
const arraySize = (array: unknown[]): number => array.length;

test('a long line is emptied in steps that grow with its length, whoever is taken back from it', () => {
  for (const count of [4_000, 40_000]) {
    const waiting = new Waiting();
    const turn = { continues: false };
    for (let id = 1; id <= count; id++) waiting.add(id, Buffer.of(id & 0xff), turn);
    for (let id = 3; id <= count; id += 3) assert.ok(waiting.take(id) !== undefined);
    let right = 0;
    const taken = steps(() => {
      for (let id = 1; id <= count; id++) if (id % 3 !== 0 && waiting.next(() => true)?.[0] === (id & 0xff)) right++;
    });
    assert.deepEqual([right, waiting.next(() => true), waiting.size, waiting.bytes], [count - Math.floor(count / 3), undefined, 0, 0]);
    // looked at once and copied twice; the first key of a Map is looked for among all
    assert.ok(taken < 8 * count, `${taken} steps for ${count}`);
  }
});
