/** Sidecars that die: what pending calls are told, when the next one is started, and what is never sent to it. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';

import { NexusError, NexusRuntime } from '@nexus/sidecar';
import { Restarts } from '../dist/esm/restarts.js';

import { ALL, deferred, ended, failure, newFolder, newRuntime, WATCHDOG } from './sidecar.js';

const folder = newFolder('restart');
after(() => rmSync(folder, { recursive: true }));

const POLICY = { deaths: 3, windowMs: 10_000, coolDownMs: 1_000, maxDelayMs: 150 };

test('one that ran well is replaced at once, one that died young after a wait that doubles up to a bound', () => {
  const restarts = new Restarts({ ...POLICY, deaths: 100 }, () => 0);
  assert.deepEqual(restarts.next(0), { waitMs: 0 });
  restarts.died(0, true, 5000);
  assert.deepEqual(restarts.next(5000), { waitMs: 0 });
  const waits = [50, 100, 150, 150].map((_, index) => {
    restarts.died(5000 + index, true, 5000 + index);
    return restarts.next(5001);
  });
  assert.deepEqual(waits, [50, 100, 150, 150].map((waitMs) => ({ waitMs })));
  const jittered = new Restarts(POLICY, () => 0.999);
  jittered.died(0, false, 2000);
  const next = jittered.next(2000);
  assert.ok('waitMs' in next && next.waitMs > 25 && next.waitMs < 26, 'a random half is taken off');
});

test('too many deaths in the window open the circuit; one start is tried after the cool-down', () => {
  const restarts = new Restarts(POLICY, () => 0);
  for (const now of [0, 10, 20]) restarts.died(now, true, now);
  assert.deepEqual(restarts.next(520), { refusedForMs: 500, deaths: 3 });
  assert.deepEqual(restarts.next(1020), { waitMs: 0 });
  restarts.died(1020, true, 1100);
  assert.ok('refusedForMs' in restarts.next(1200), 'half-open: one early death is enough');
  assert.deepEqual(restarts.next(2100), { waitMs: 0 });
  restarts.died(2100, true, 4000);
  assert.deepEqual(restarts.next(4000), { waitMs: 0 });
});

test('deaths that lie apart are no crash loop', () => {
  const restarts = new Restarts(POLICY, () => 0);
  for (let now = 0; now < 100_000; now += 6000) {
    restarts.died(now - 5000, true, now);
    assert.deepEqual(restarts.next(now), { waitMs: 0 });
  }
});

test('a program that keeps dying is not started again and again: calls fail at once and say how it ended', WATCHDOG, async () => {
  const starts = join(folder, 'starts');
  const binaryPath = join(folder, 'crashing');
  writeFileSync(binaryPath, `#!/bin/sh\necho x >> ${starts}\necho "no such luck" >&2\nexit 41\n`, { mode: 0o755 });
  const runtime = new NexusRuntime({ binaryPath, maxCrashes: 3, crashCoolDownMs: 4000, maxRestartDelayMs: 10 });
  for (let death = 0; death < 3; death++) {
    const error = await failure(runtime.ping());
    assert.deepEqual([error.code, error.context?.['exitCode'], error.retryable], ['SIDECAR_GONE', 41, true]);
  }
  const refused = await failure(runtime.ping());
  assert.deepEqual([refused.code, refused.retryable, refused.context?.['reason']], ['SIDECAR_GONE', true, 'crash-loop']);
  assert.deepEqual([refused.context?.['exitCode'], refused.context?.['stderr']], [41, 'no such luck']);
  assert.ok((refused.context?.['retryAfterMs'] as number) <= 4000);
  for (let call = 0; call < 100; call++) await failure(runtime.executeHandler('return 1'));
  assert.equal(readFileSync(starts, 'utf8'), 'x\n'.repeat(3));
  // The cool-down is over: one more start, and it dies.
  await new Promise((resolve) => setTimeout(resolve, 4100));
  assert.equal((await failure(runtime.ping())).context?.['exitCode'], 41);
  assert.equal((await failure(runtime.ping())).context?.['reason'], 'crash-loop');
  assert.equal(readFileSync(starts, 'utf8'), 'x\n'.repeat(4));
  await runtime.shutdown();
});

test('a suspension of a sidecar that has gone is never sent to the next one', WATCHDOG, async () => {
  const runtime = newRuntime();
  const { pid } = await runtime.start();
  const suspend = async () => (await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL })).suspension?.suspensionId ?? '';
  const [one, two] = [await suspend(), await suspend()];
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  // Nothing is started for it either.
  const before = await failure(runtime.resumeHandler(one, { success: true }));
  assert.deepEqual([before.code, before.retryable, before.context?.['reason']], ['SUSPENSION_ERROR', false, 'sidecar-gone']);
  assert.equal((await runtime.executeHandler('return 1')).returnValue, 1);
  assert.equal((await failure(runtime.cancel(two))).code, 'SUSPENSION_ERROR');
  assert.equal((await runtime.executeHandler('return 2')).returnValue, 2);
  await runtime.shutdown();
});

test('an abort during a restart rejects at once with the reason, and nothing runs', WATCHDOG, async () => {
  const runtime = newRuntime();
  const { pid } = await runtime.start();
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  await failure(runtime.ping()).catch(() => undefined);
  // It died young: the next start waits, or has not said hello.
  const controller = new AbortController();
  const reason = new Error('changed my mind');
  const run = failure(runtime.run('for (;;);', { signal: controller.signal }));
  controller.abort(reason);
  const error = await run;
  assert.deepEqual([error.code, error.cause], ['CANCELLED', reason]);
  const stats = await runtime.getStats();
  assert.equal(stats.activeInstances + stats.suspendedInstances, 0);
  await runtime.shutdown();
});

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function children(): string[] {
  return readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ').filter((pid) => pid !== '');
}

test('kill storm: fifty sidecars killed at random times leave no promise, process or descriptor behind', { timeout: 600_000 }, async () => {
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown): unknown => unhandled.push(reason);
  process.on('unhandledRejection', onUnhandled);
  const counted = (): { descriptors: number; children: number } => ({ descriptors: descriptors(), children: children().length });
  // what the tests before this one have ended may be closed a moment later
  let before = counted();
  for (let same = 0; same < 20; ) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    const now = counted();
    same = isDeepStrictEqual(now, before) ? same + 1 : 0;
    before = now;
  }
  const runtime = newRuntime({ maxInstances: 2, maxCrashes: 1000, maxRestartDelayMs: 20 });
  const handle = await runtime.precompileHandler('return $args * 2');
  const counts: Record<string, number> = {};
  const settled = async (call: Promise<unknown>): Promise<void> => {
    const outcome = await call.then(
      () => 'ok',
      (error: unknown) => (error instanceof NexusError ? error.code : String(error)),
    );
    counts[outcome] = (counts[outcome] ?? 0) + 1;
  };
  for (let cycle = 0; cycle < 50; cycle++) {
    const { pid } = await runtime.start();
    const gate = deferred<void>();
    const calls = [
      runtime.executeHandler('for (;;);'),
      runtime.executeCompiledHandler(handle, { args: cycle }),
      runtime.run('return await $ext.a.b()', { capabilities: ALL, extensions: { a: { b: () => gate.promise } } }),
      runtime.run('for (let i = 0; i < 100; i++) await $ext.a.b(i)', { capabilities: ALL, extensions: { a: { b: (i: number) => i } } }),
      runtime.executeHandler('$state.x = "x".repeat(1e6); return $state.x', { capabilities: ALL }),
      runtime.getStats(),
      runtime.precompileHandler(`return ${cycle}`),
    ].map(settled);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 30));
    process.kill(pid, 'SIGKILL');
    await Promise.all(calls);
    gate.resolve();
  }
  // The one handle has lived through all of them.
  assert.equal((await runtime.executeCompiledHandler(handle, { args: 21 })).returnValue, 42);
  await runtime.shutdown();
  process.off('unhandledRejection', onUnhandled);
  assert.deepEqual(unhandled, []);
  assert.deepEqual(Object.keys(counts).filter((outcome) => outcome !== 'ok' && outcome !== 'SIDECAR_GONE'), [], JSON.stringify(counts));
  assert.ok((counts['SIDECAR_GONE'] ?? 0) >= 100, JSON.stringify(counts));
  while (!isDeepStrictEqual(counted(), before)) await new Promise((resolve) => setTimeout(resolve, 10));
});

test('the end of a sidecar in the midst of an execution is not retryable, neither of a run nor of a resume; before anything was told it is', WATCHDOG, async () => {
  const runtime = newRuntime();
  const { pid } = await runtime.start();
  const gone = (): void => void process.kill(pid, 'SIGKILL');
  const first = await runtime.executeHandler('await $ext.a.b(); for (;;);', { capabilities: ALL });
  const spinning = failure(runtime.executeHandler('for (;;);'));
  const resumed = failure(runtime.resumeHandler(first.suspension?.suspensionId ?? '', { success: true }));
  const run = failure(runtime.run('await $ext.a.end()', { capabilities: ALL, extensions: { a: { end: gone } } }));
  const errors = await Promise.all([spinning, resumed, run]);
  assert.deepEqual(errors.map(({ code, retryable }) => [code, retryable]), [['SIDECAR_GONE', true], ['SIDECAR_GONE', false], ['SIDECAR_GONE', false]]);
  assert.ok(errors.every((error) => error.context?.['signal'] === 'SIGKILL'), JSON.stringify(errors));
  await runtime.shutdown();
});
