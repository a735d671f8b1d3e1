/** What `run` waits for of its caller behind the handler's end, and what it says of the errors that the caller's extensions threw. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import type { NexusRuntime, RunOptions } from '@nexus/sidecar';

import { ALL, deferred, failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ maxInstances: 2 });
after(() => runtime.shutdown());
const capabilities = ALL;

const never = new Promise<never>(() => undefined);

/** A run whose handler has returned, and whose `onSegment` never settles. */
async function stuck(of: NexusRuntime, options: RunOptions = {}): Promise<{ run: Promise<unknown> }> {
  const delivered = deferred<void>();
  const onSegment = (): Promise<never> => {
    delivered.resolve();
    return never;
  };
  const run = of.run('$emit("e", 1); return 1', { capabilities, onSegment, ...options });
  run.catch(() => undefined);
  await delivered.promise;
  // behind the answer that brought the segment
  await of.ping();
  return { run };
}

test('an onSegment that never settles is given up for an abort', WATCHDOG, async () => {
  const controller = new AbortController();
  const reason = new Error('closed');
  const { run } = await stuck(runtime, { signal: controller.signal });
  controller.abort(reason);
  const error = await failure(run);
  assert.deepEqual([error.code, error.cause, error.events?.length], ['CANCELLED', reason, 1]);
});

test('an onSegment that never settles is given up after the time that the run was given', WATCHDOG, async () => {
  const { run } = await stuck(runtime, { timeoutMs: 300 });
  const error = await failure(run);
  assert.deepEqual([error.code, error.retryable, error.segments?.length], ['TIMEOUT', false, 1]);
  assert.match(error.message, /onSegment/);
});

test('without a time of its own that is what an extension has', WATCHDOG, async () => {
  const short = newRuntime({ maxInstances: 1, suspensionTimeoutMs: 300 });
  const { run } = await stuck(short);
  assert.equal((await failure(run)).code, 'TIMEOUT');
  await short.shutdown();
});

test('an onSegment that never settles is given up when the sidecar dies, and at shutdown', WATCHDOG, async () => {
  const mortal = newRuntime({ maxInstances: 1 });
  const { pid } = await mortal.start();
  const killed = await stuck(mortal);
  process.kill(pid, 'SIGKILL');
  assert.equal((await failure(killed.run)).code, 'SIDECAR_GONE');
  const ended = await stuck(mortal);
  await mortal.shutdown();
  assert.equal((await failure(ended.run)).code, 'SIDECAR_GONE');
});

test('what onSegment returned is waited for, and what it rejects with is thrown', WATCHDOG, async () => {
  const gate = deferred<void>();
  let settled = false;
  const begun = deferred<void>();
  const waits = (): Promise<void> => {
    begun.resolve();
    return gate.promise;
  };
  const run = runtime.run('return 1', { onSegment: waits }).finally(() => (settled = true));
  await begun.promise;
  await runtime.ping();
  assert.equal(settled, false);
  gate.resolve();
  assert.equal(((await run) as { value: unknown }).value, 1);
  const own = new Error('the disk is full');
  const refused = deferred<void>();
  const called = deferred<void>();
  const onSegment = (): Promise<void> => {
    called.resolve();
    return refused.promise;
  };
  const failing = runtime.run('return 1', { onSegment });
  await called.promise;
  refused.reject(own);
  await assert.rejects(failing, own);
});

test('the cause of a failed run is what the extension threw, or none where that cannot be known', WATCHDOG, async () => {
  const errors = [new Error('locked'), new Error('locked'), new Error('gone')];
  const extensions = { db: { write: (index: number) => Promise.reject(errors[index]), read: (index: number) => Promise.reject(errors[index]) } };
  const causeOf = async (code: string): Promise<unknown> => {
    const error = await failure(runtime.run(code, { extensions }));
    assert.ok(['locked', 'gone'].includes(error.message), error.message);
    return error.cause;
  };
  // the first one is thrown on, after another that looks the same
  const first = 'let e; try { await $ext.db.write(0) } catch (it) { e = it } try { await $ext.db.write(1) } catch {} throw e';
  assert.equal(await causeOf(first), undefined);
  assert.equal(await causeOf('await Promise.all([$ext.db.write(1), $ext.db.write(0)])'), undefined);
  // the same error twice is no other; nor is one of another method, or with another message
  assert.equal(await causeOf('try { await $ext.db.write(1) } catch {} await $ext.db.write(1)'), errors[1]);
  assert.equal(await causeOf('try { await $ext.db.read(0) } catch {} await $ext.db.write(1)'), errors[1]);
  assert.equal(await causeOf('try { await $ext.db.write(0) } catch {} await $ext.db.write(2)'), errors[2]);
});

test('however many errors there are, none is taken for the cause that is not', WATCHDOG, async () => {
  const early = new Error('7');
  const extensions = {
    db: {
      write: (index: number) => {
        throw index === 0 ? early : new Error(String(index === 300 ? 7 : 1000 + index));
      },
    },
  };
  const code = `let first; for (let i = 0; i <= 300; i++) try { await $ext.db.write(i) } catch (e) { first ??= e } throw first`;
  const error = await failure(runtime.run(code, { extensions }));
  assert.deepEqual([error.message, error.cause], ['7', undefined]);
});
