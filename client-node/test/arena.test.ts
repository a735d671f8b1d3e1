/** Large payloads through shared memory, against the real sidecar: nothing of it is visible but the time. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { after, test } from 'node:test';

import { decodePayload, encodePayload, type NexusRuntime } from '@nexus/sidecar';
import { Arena } from '../dist/esm/arena.js';

import { ALL, ended, failure, newRuntime, WATCHDOG } from './sidecar.js';

const KB = 1024;
const runtime = newRuntime({ maxInstances: 4 });
after(() => runtime.shutdown());

/** Segments that this process has open. */
function open(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith('/dev/shm/nexus-sidecar.') ? [target] : [];
    } catch {
      return [];
    }
  });
}

/** Sends something large, and waits until the next large thing would go through shared memory. */
async function warm(target: NexusRuntime): Promise<void> {
  const before = open().length;
  await target.run('return 0', { args: 'x'.repeat(600 * KB) });
  for (let i = 0; i < 10_000 && open().length === before; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(open().length, before + 1, 'the segment is open');
  await target.ping(); // the sidecar knows that as well
  await target.run('return 0');
}

test('before a large payload there is no segment, and then one without a name', WATCHDOG, async () => {
  assert.equal((await runtime.run('return $args', { args: 5 })).value, 5);
  assert.deepEqual(open(), []);
  await warm(runtime);
  assert.match(open()[0] ?? '', /^\/dev\/shm\/nexus-sidecar\.\d+\.[0-9a-f]{32} \(deleted\)$/);
  assert.ok((await runtime.getStats()).arenaBytes > 0);
});

test('values of every size arrive as they are, both ways', WATCHDOG, async () => {
  for (const size of [10, 100 * KB, 256 * KB - 6, 256 * KB - 5, 256 * KB, 600 * KB, 3000 * KB, 100]) {
    const state = { text: 'ä'.repeat(size / 2), bytes: new Uint8Array(size).fill(7), n: 1 };
    const code = '$state.copy = $state.text; return [$state.text, $state.bytes, $args.length, $scope.s]';
    const { value, stateMutations } = await runtime.run(code, { state, args: 'y'.repeat(size), scope: { s: size }, capabilities: ALL });
    assert.deepEqual(value, [state.text, state.bytes, size, size], `${size}`);
    assert.deepEqual(stateMutations, [{ op: 'set', key: 'copy', value: state.text }]);
  }
});

test('Buffers in, Buffers out, resumes and resident states', WATCHDOG, async () => {
  const text = 'z'.repeat(700 * KB);
  const result = await runtime.executeHandler('$state.b = $state.a; return $state.a', { state: encodePayload({ a: text }), capabilities: ALL });
  assert.equal(decodePayload(result.returnValue as Buffer), text);
  assert.deepEqual(decodePayload(result.stateMutations), [{ op: 'set', key: 'b', value: text }]);
  const { value } = await runtime.run('return await $ext.a.b()', { capabilities: ALL, extensions: { a: { b: () => text } } });
  assert.equal(value, text);
  await using state = await runtime.createState({ a: text });
  await state.patch({ set: { b: text + '!' } });
  assert.deepEqual((await state.snapshot()).state, { a: text, b: text + '!' });
});

test('many at the same time never get another one’s bytes, whether there is room or not', WATCHDOG, async () => {
  const runs = Array.from({ length: 60 }, (_, i) => {
    const args = String.fromCharCode(97 + (i % 26)).repeat(400 * KB + i);
    return runtime.run('return [$args, $args.length]', { args }).then(({ value }) => assert.deepEqual(value, [args, args.length]));
  });
  await Promise.all(runs);
});

test('a request that cannot be encoded leaves no place in use', WATCHDOG, async () => {
  const text = 'x'.repeat(4000 * KB);
  for (let i = 0; i < 40; i++) {
    const error = await failure(runtime.run('return 1', { state: { text }, args: text, scope: 2n ** 70n }));
    assert.equal(error.code, 'SERIALIZATION_ERROR');
  }
  assert.equal((await runtime.run('return $args.length', { args: text })).value, text.length);
});

test('a getter that makes a request while a large value is encoded gets its own', WATCHDOG, async () => {
  const inner: Promise<unknown>[] = [];
  const text = 'x'.repeat(500 * KB);
  const args = {
    text,
    get n() {
      inner.push(runtime.run('return $args', { args: text + 'inner' }));
      return 1;
    },
    last: text,
  };
  const { value } = await runtime.run('return [$args.text, $args.n, $args.last]', { args });
  assert.deepEqual(value, [text, 1, text]);
  assert.equal(((await inner[0]) as { value: string }).value, text + 'inner');
});

test('switched off, here or there, everything goes through the socket', WATCHDOG, async () => {
  const before = open().length;
  for (const config of [{ sharedMemory: false }, { maxArenaBytes: 0 }]) {
    const plain = newRuntime(config);
    try {
      const text = 'x'.repeat(1000 * KB);
      for (let i = 0; i < 3; i++) assert.equal((await plain.run('return $args', { args: text })).value, text);
      assert.equal(open().length, before);
      assert.equal((await plain.getStats()).arenaBytes, 0);
    } finally {
      await plain.shutdown();
    }
  }
});

test('a segment goes with its sidecar, and the next sidecar gets its own', WATCHDOG, async () => {
  const before = open().length;
  const pids: number[] = [];
  const mortal = newRuntime();
  try {
    await warm(mortal);
    const { pid } = await mortal.start();
    const text = 'x'.repeat(1000 * KB);
    const pending = failure(mortal.run('for (;;);', { args: text, timeoutMs: 50_000 }));
    process.kill(pid, 'SIGKILL');
    assert.equal((await pending).code, 'SIDECAR_GONE');
    await ended(pid);
    assert.equal(open().length, before);
    pids.push(pid, (await mortal.start()).pid);
    await warm(mortal);
    assert.equal((await mortal.run('return $args', { args: text })).value, text);
  } finally {
    await mortal.shutdown();
  }
  assert.equal(open().length, before);
  // others of this machine may die at any moment, and leave theirs to the next one that starts
  const names = readdirSync('/dev/shm').filter((name) => pids.some((pid) => name.startsWith(`nexus-sidecar.${pid}.`)));
  assert.deepEqual(names, []);
});

test('what is no segment is not opened', () => {
  for (const name of ['../../etc/passwd', 'nexus-sidecar.1.x', `nexus-sidecar.1.${'0'.repeat(32)}`, '']) {
    assert.throws(() => Arena.open(name, 1, 1024));
  }
});
