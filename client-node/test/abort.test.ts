/** `signal` on the calls of one segment, and `run` with a compiled handler: an abort leaves nothing in the sidecar. */
import assert from 'node:assert/strict';
import { getEventListeners, setMaxListeners } from 'node:events';
import { test } from 'node:test';

import type { NexusRuntime } from '@nexus/sidecar';

import { ALL, ended, failure, newRuntime, WATCHDOG } from './sidecar.js';

const reason = new Error('enough');

async function until(runtime: NexusRuntime, holds: (stats: Awaited<ReturnType<NexusRuntime['getStats']>>) => boolean): Promise<void> {
  while (!holds(await runtime.getStats())) await new Promise((resolve) => setTimeout(resolve, 5));
}

const idle = (runtime: NexusRuntime): Promise<void> =>
  until(runtime, ({ activeInstances, suspendedInstances, queued }) => activeInstances + suspendedInstances + queued === 0);

test('an abort stops an execution on the CPU, in the sidecar\'s queue and in the client\'s', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 1, timeoutMs: 0, maxQueued: 2000, maxQueueMs: 50_000 });
  const handle = await runtime.precompileHandler('for (;;);');
  for (const start of [
    (signal: AbortSignal) => runtime.executeHandler('for (;;);', {}, undefined, { signal }),
    (signal: AbortSignal) => runtime.executeCompiledHandler(handle, {}, undefined, { signal }),
  ]) {
    const controllers = Array.from({ length: 1100 }, () => new AbortController());
    const calls = controllers.map(({ signal }) => failure(start(signal)));
    await until(runtime, ({ activeInstances }) => activeInstances === 1);
    for (const controller of controllers) controller.abort(reason);
    for (const error of await Promise.all(calls)) assert.deepEqual([error.code, error.cause], ['CANCELLED', reason]);
    await idle(runtime);
    assert.ok(controllers.every(({ signal }) => getEventListeners(signal, 'abort').length === 0));
  }
  assert.equal((await runtime.executeHandler('return 7')).returnValue, 7);
  await runtime.shutdown();
});

test('an abort of a resume ends the execution, also when the resume has not been sent', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2, timeoutMs: 0, maxQueued: 2000, maxQueueMs: 50_000 });
  const context = { capabilities: ALL };
  const { suspension: first } = await runtime.executeHandler('await $ext.a.b(); for (;;);', context);
  const running = new AbortController();
  const resumed = failure(runtime.resumeHandler(first!.suspensionId, { success: true }, { signal: running.signal }));
  await until(runtime, ({ activeInstances }) => activeInstances === 1);
  running.abort(reason);
  assert.equal((await resumed).cause, reason);
  await idle(runtime);

  const { suspension: second } = await runtime.executeHandler('await $ext.a.b()', context);
  const others = new AbortController();
  setMaxListeners(0, others.signal);
  const busy = runtime.run('for (;;);', { signal: others.signal });
  const crowd = [busy, ...Array.from({ length: 1100 }, () => runtime.run('for (;;);', { signal: others.signal }))].map((run) => failure(run));
  const waiting = new AbortController();
  const unsent = failure(runtime.resumeHandler(second!.suspensionId, { success: true }, { signal: waiting.signal }));
  waiting.abort(reason);
  assert.equal((await unsent).cause, reason);
  await until(runtime, ({ suspendedInstances }) => suspendedInstances === 0);
  others.abort(reason);
  await Promise.all(crowd);
  await idle(runtime);
  await runtime.shutdown();
});

test('a signal that is aborted already sends nothing, one that is none is refused, one of a call that ended is let go', WATCHDOG, async () => {
  const runtime = newRuntime();
  const aborted = await failure(runtime.executeHandler('return 1', {}, undefined, { signal: AbortSignal.abort(reason) }));
  assert.deepEqual([aborted.code, aborted.cause], ['CANCELLED', reason]);
  const wrong = await failure(runtime.executeHandler('return 1', {}, undefined, { signal: {} as AbortSignal }));
  assert.equal(wrong.code, 'INVALID_ARGUMENT');
  const { signal } = new AbortController();
  assert.equal((await runtime.executeHandler('return 1', {}, undefined, { signal })).returnValue, 1);
  assert.equal(getEventListeners(signal, 'abort').length, 0);
  assert.equal((await runtime.getStats()).totalExecutions, 1);
  await runtime.shutdown();
});

test('run takes a compiled handler, and compiles it again for the next sidecar', WATCHDOG, async () => {
  const runtime = newRuntime();
  const handle = await runtime.precompileHandler('return 1 + await $ext.math.double($args)');
  const options = { args: 4, capabilities: ALL, extensions: { math: { double: (value: number) => value * 2 } } };
  assert.equal((await runtime.run(handle, options)).value, 9);
  const { pid } = await runtime.start();
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  assert.deepEqual(await Promise.all([1, 2, 3].map(async (args) => (await runtime.run(handle, { ...options, args })).value)), [3, 5, 7]);
  assert.equal((await failure(runtime.run(Buffer.alloc(0)))).code, 'INVALID_ARGUMENT');
  assert.equal((await failure(runtime.run(Buffer.from('no handle')))).code, 'INVALID_HANDLER');
  await runtime.shutdown();
});
