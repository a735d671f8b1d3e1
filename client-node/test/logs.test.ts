/** `onLog`: what a handler logs, while it runs. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import type { LogRecord } from '@nexus/sidecar';

import { ALL, deferred, failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ timeoutMs: 60_000 });
after(() => runtime.shutdown());

test('records come while the handler runs', WATCHDOG, async () => {
  const heard = deferred<LogRecord>();
  const controller = new AbortController();
  const running = runtime.run('console.warn("here", 1); for (;;);', { onLog: heard.resolve, signal: controller.signal });
  // nothing but a record ends the wait: the handler runs until it is ended for that
  const record = await heard.promise;
  assert.deepEqual([record.level, record.message], ['warn', 'here 1']);
  controller.abort();
  assert.equal((await failure(running)).name, 'AbortError');
});

test('each record comes once, in order, before its segment, which has it too', WATCHDOG, async () => {
  const heard: string[] = [];
  const seen: [number, number][] = [];
  const source = `const work = (text) => { $log(text); for (let n = 0; n < 2e4; n++) Math.max(n, 1) };
    await Promise.all([0, 1, 2, 3].map(async (k) => { work('a' + k); await $ext.a.b(k); for (let i = 0; i < 10; i++) work('b' + k + i) }));
    return 1`;
  const result = await runtime.run(source, {
    extensions: { a: { b: async (k: number) => k } },
    onLog: ({ message }) => heard.push(message),
    onSegment: ({ logs }) => seen.push([heard.length, logs.length]),
  });
  assert.deepEqual(heard, result.logs.map(({ message }) => message));
  assert.deepEqual([heard.length, new Set(heard).size], [44, 44]);
  let sum = 0;
  for (const [before, own] of seen) assert.equal(before, (sum += own));
  const quiet = await runtime.run('$log("x")');
  assert.deepEqual(quiet.logs.map(({ message }) => message), ['x']);
});

test('what onLog throws ends the run, and what is no function is refused', WATCHDOG, async () => {
  for (const onLog of [() => { throw new Error('mine'); }, async () => { throw new Error('mine'); }]) {
    await assert.rejects(runtime.run('$log(1); for (;;);', { onLog, capabilities: ALL }), /^Error: mine$/);
  }
  const told: unknown[] = [];
  const onLog = (record: LogRecord): never => { told.push(record); throw new Error('once'); };
  await assert.rejects(runtime.run('$log(1); $log(2); $log(3)', { onLog }), /^Error: once$/);
  assert.equal(told.length, 1, 'nothing more is told to who has thrown');
  assert.equal((await failure(runtime.run('1', { onLog: 5 as never }))).code, 'INVALID_ARGUMENT');
});

test('all keys of a request together still make a map', WATCHDOG, async () => {
  const shared = newRuntime({ sharedMemory: true });
  after(() => shared.shutdown());
  const options = {
    panelId: 'p', handlerName: 'h', state: { x: 'x'.repeat(400_000) }, args: 'y'.repeat(400_000), scope: { z: 1 }, capabilities: ['state:read:x'],
    limits: { maxEvents: 1 }, strictCapabilities: true, suspendMode: 'await' as const, seed: 7, timeoutMs: 4_000, onLog: () => undefined,
  };
  for (let round = 0; round < 6; round++) {
    const { value } = await shared.run('return $state.x + $args', options);
    assert.equal((value as string).length, 800_000);
  }
});
