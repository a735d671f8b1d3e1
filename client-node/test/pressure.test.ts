/** Many calls at once, sidecars that do not read, callers that are slow: memory stays bounded and order stays. */
import assert from 'node:assert/strict';
import { setMaxListeners } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { NexusRuntime } from '@nexus/sidecar';
import { beginFrame, endFrame } from '../dist/esm/frames.js';
import { encodeFields, type Fields } from '../dist/esm/fields.js';
import { Writer } from '../dist/esm/writer.js';

import { ALL, failure, newFolder, newRuntime, WATCHDOG } from './sidecar.js';

const folder = newFolder('pressure');
after(() => rmSync(folder, { recursive: true }));

function frame(kind: number, id: number, fields: Fields): Buffer {
  const writer = new Writer(256, 1 << 20);
  const at = beginFrame(writer, kind, id);
  encodeFields(writer, fields);
  endFrame(writer, at, 1 << 20);
  return Buffer.from(writer.written());
}

const HELLO = { version: 2, build: 'x', engine: 'x', pid: 1, debug: false, limits: { maxFrameBytes: 64 << 20, maxInFlight: 1024 } };

/** A peer that says hello and then reads nothing. */
async function deafPeer(name: string): Promise<{ path: string; close(): void; peer: Promise<Socket> }> {
  const path = join(folder, name);
  let met!: (socket: Socket) => void;
  const peer = new Promise<Socket>((resolve) => (met = resolve));
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      socket.pause();
      socket.write(frame(0x81, 0, HELLO));
      met(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { path, peer, close: () => server.close() };
}

test('what a sidecar does not read waits in the client up to a bound in bytes, then calls are OVERLOADED', WATCHDOG, async () => {
  const { path, peer, close } = await deafPeer('bytes');
  const runtime = new NexusRuntime({ connect: path, maxWaitingBytes: 8 << 20, shutdownTimeoutMs: 10 });
  const first = failure(runtime.executeHandler('return 1'));
  const socket = await peer;
  const args = Buffer.alloc(1 << 20, 0xc0);
  args.set([0xc6, 0, 0x0f, 0xff, 0xfb]); // one bin of a MiB
  const outcomes: Promise<string>[] = [];
  for (let call = 0; call < 64; call++) {
    outcomes.push(failure(runtime.executeHandler('return 1', { args })).then(({ code }) => code));
    await new Promise(setImmediate); // lets the kernel refuse
  }
  const refused = await failure(runtime.executeHandler('return 1', { args }));
  assert.deepEqual([refused.code, refused.retryable, refused.context?.['resource']], ['OVERLOADED', true, 'waitingBytes']);
  assert.ok((refused.context?.['retryAfterMs'] as number) > 0);
  socket.destroy();
  assert.equal((await first).code, 'SIDECAR_GONE');
  const codes = await Promise.all(outcomes);
  const accepted = codes.filter((code) => code === 'SIDECAR_GONE').length;
  assert.ok(accepted >= 8 && accepted < 24, `${accepted} MiB were accepted`);
  assert.deepEqual(new Set(codes), new Set(['SIDECAR_GONE', 'OVERLOADED']));
  close();
  await runtime.shutdown();
});

test('the number of calls that wait is bounded too', WATCHDOG, async () => {
  const { path, peer, close } = await deafPeer('count');
  const runtime = new NexusRuntime({ connect: path, maxWaitingRequests: 50, shutdownTimeoutMs: 10 });
  void failure(runtime.ping());
  const socket = await peer;
  // hello is there to be read: several turns of the event loop see it, also where one of them is late
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setTimeout(resolve, 2));
  const codes = Array.from({ length: 2000 }, () => failure(runtime.executeHandler('return 1')).then(({ code }) => code));
  await new Promise((resolve) => setTimeout(resolve, 20));
  socket.destroy();
  const refused = (await Promise.all(codes)).filter((code) => code === 'OVERLOADED').length;
  // 50 wait, and a few dozen are out.
  assert.ok(refused > 1850 && refused < 1950, `${refused} were refused`);
  close();
  await runtime.shutdown();
});

setFlagsFromString('--expose_gc');
const collectGarbage = runInNewContext('gc') as () => void;

test('ten thousand runs at once all come back, with flat memory', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2, maxQueued: 2000, maxQueueMs: 50_000, timeoutMs: 50_000 });
  const round = async (): Promise<void> => {
    const runs = Array.from({ length: 10_000 }, (_, args) => runtime.run('return $args + 1', { args }));
    const results = await Promise.all(runs);
    assert.ok(results.every(({ value }, index) => value === index + 1));
  };
  await round();
  collectGarbage();
  const before = process.memoryUsage();
  for (let repeat = 0; repeat < 3; repeat++) await round();
  collectGarbage();
  const grown = process.memoryUsage();
  // 10,000 results that stayed would be 30 MB a round.
  const heap = grown.heapUsed - before.heapUsed;
  const outside = grown.external + grown.arrayBuffers - before.external - before.arrayBuffers;
  assert.ok(heap < 16 << 20 && outside < 32 << 20, `heap grew by ${heap}, buffers by ${outside}`);
  await runtime.shutdown();
});

test('a slow consumer gets every segment in order, whatever order the calls are answered in', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2 });
  const seqs: number[] = [];
  const seen: unknown[] = [];
  const result = await runtime.run(
    `const n = 30;
     await Promise.all(Array.from({ length: n }, async (_, i) => { await $ext.x.wait(i); $emit('done', i); }));
     return n`,
    {
      capabilities: ALL,
      extensions: { x: { wait: (i: number) => new Promise((resolve) => setTimeout(resolve, ((i * 7) % 30) / 3)) } },
      onSegment: async ({ seq, events }) => {
        seqs.push(seq);
        seen.push(...events.map(({ payload }) => payload));
        await new Promise((resolve) => setTimeout(resolve, 5));
      },
    },
  );
  assert.equal(result.value, 30);
  assert.deepEqual(seqs, seqs.map((_, index) => index));
  assert.deepEqual(seen, result.events.map(({ payload }) => payload));
  assert.deepEqual([...seen].sort((a, b) => (a as number) - (b as number)), Array.from({ length: 30 }, (_, i) => i));
  await runtime.shutdown();
});

test('an abort frees the instance, running on the CPU, suspended, in the queue of the sidecar or in that of the client', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 1, timeoutMs: 0, maxQueueMs: 50_000, maxQueued: 2000 });
  const controller = new AbortController();
  const reason = new Error('enough');
  const { signal } = controller;
  setMaxListeners(0, signal);
  const runs = [
    runtime.run('for (;;);', { signal }),
    ...Array.from({ length: 1200 }, () => runtime.run('return 1', { signal })),
  ].map((run) => failure(run));
  while ((await runtime.getStats()).activeInstances === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  controller.abort(reason);
  for (const error of await Promise.all(runs)) assert.deepEqual([error.code, error.cause], ['CANCELLED', reason]);
  const suspending = new AbortController();
  const suspended = failure(
    runtime.run('return await $ext.a.b()', {
      capabilities: ALL,
      signal: suspending.signal,
      extensions: { a: { b: () => { setImmediate(() => suspending.abort(reason)); return new Promise(() => undefined); } } },
    }),
  );
  assert.equal((await suspended).cause, reason);
  for (;;) {
    const { activeInstances, suspendedInstances, queued } = await runtime.getStats();
    if (activeInstances + suspendedInstances + queued === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.equal((await runtime.executeHandler('return 7')).returnValue, 7);
  await runtime.shutdown();
});
