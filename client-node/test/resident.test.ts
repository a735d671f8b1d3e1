/** Resident states against the real sidecar. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { encodePayload, type ResidentState } from '@nexus/sidecar';

import { ALL, ended, failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ debug: true, maxInstances: 4 });
after(() => runtime.shutdown());

const on = (state: unknown) => ({ state, capabilities: ALL });

test('executions run on a state by its handle, and leave their effects in it', WATCHDOG, async () => {
  const state = await runtime.createState({ n: 1, user: { name: 'Ada' } });
  const first = await runtime.run('$state.n += 1; $state.user.name = "Eve"; return $state.n', on(state));
  assert.equal(first.value, 2);
  assert.equal(first.stateVersion, 2);
  assert.equal(first.stateMutations.length, 2);
  const second = await runtime.executeHandler('return [$state.n, $state.user.name]', on(state));
  assert.deepEqual(second.returnValue, [2, 'Eve']);
  assert.equal(second.stateVersion, 2);
  const handle = await runtime.precompileHandler('delete $state.user; return Object.keys($state)');
  assert.deepEqual((await runtime.executeCompiledHandler(handle, on(state))).returnValue, ['n']);
  assert.deepEqual(await state.snapshot(), { version: 3, state: { n: 2 } });
  assert.equal(await state.dispose(), true);
  assert.equal(await state.dispose(), false);
  const gone = await failure(runtime.run('return 1', on(state)));
  assert.equal(gone.code, 'INVALID_ARGUMENT');
  assert.equal(gone.context?.['reason'], 'unknown-state');
});

test('the effects of each segment are there before the extension is called', WATCHDOG, async () => {
  await using state = await runtime.createState({ step: 0 });
  const seen: unknown[] = [];
  const extensions = { peek: { look: async () => seen.push((await state.snapshot(['step'])).state['step']) } };
  const code = '$state.step = 1; await $ext.peek.look(); $state.step = 2; await $ext.peek.look(); $state.step = 3';
  const { segments, stateVersion } = await runtime.run(code, { ...on(state), extensions });
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(segments.map((segment) => segment.stateVersion), [2, 3, 4]);
  assert.equal(stateVersion, 4);
});

test('patches and snapshots, whole or in part, plain or in Buffers', WATCHDOG, async () => {
  await using state = await runtime.createState(encodePayload({ a: 1, b: 2 }));
  assert.equal(await state.patch({ set: { c: 3 }, delete: ['a', 'nothing'] }), 2);
  assert.equal(await state.patch({ set: encodePayload({ d: 4n }) }), 3);
  assert.equal(await state.patch({}), 3);
  assert.deepEqual(await state.snapshot(), { version: 3, state: { b: 2, c: 3, d: 4 } });
  assert.deepEqual(await state.snapshot(['d', 'x']), { version: 3, state: { d: 4 } });
  assert.deepEqual(await state.snapshot([]), { version: 3, state: {} });
  const stale = await failure(state.patch({ set: { b: 0 }, expectVersion: 2 }));
  assert.deepEqual(stale.context, { reason: 'stale-version', version: 3, expected: 2 });
  assert.equal(stale.retryable, true);
});

test('what is expected of a state is refused before it runs, and lost when somebody else was faster', WATCHDOG, async () => {
  await using state = await runtime.createState({ n: 1 });
  const early = await failure(runtime.run('return 1', on(state.expect(7))));
  assert.equal(early.context?.['reason'], 'stale-version');
  const code = 'await $ext.other.writes(); $state.n += 1';
  const extensions = { other: { writes: () => state.patch({ set: { other: true } }) } };
  for (const use of [state.exclusive(), state.expect(2)]) {
    const lost = await failure(runtime.run(code, { ...on(use), extensions }));
    assert.equal(lost.context?.['reason'], 'stale-version');
  }
  assert.deepEqual((await state.snapshot()).state, { n: 1, other: true });
  assert.equal((await runtime.run('$state.n = 5; await $ext.a.b(); $state.n = 6', { ...on(state.exclusive()), extensions: { a: { b: () => 0 } } })).stateVersion, 5);
});

test('what cannot be a state or a patch rejects, and harms nobody', WATCHDOG, async () => {
  for (const bad of [5, 'text', [1], encodePayload(1)]) {
    assert.equal((await failure(runtime.createState(bad))).code, 'INVALID_ARGUMENT');
  }
  await using state = await runtime.createState();
  for (const bad of [undefined, { set: 1 }, { delete: 'a' }, { delete: [1] }, { expectVersion: -1 }, { expectVersion: 0.5 }]) {
    assert.equal((await failure(state.patch(bad as never))).code, 'INVALID_ARGUMENT');
  }
  assert.equal((await failure(state.snapshot('a' as never))).code, 'INVALID_ARGUMENT');
  assert.throws(() => state.expect(-1), { code: 'INVALID_ARGUMENT' });
  assert.deepEqual(await state.snapshot(), { version: 1, state: {} });
  const other = newRuntime();
  try {
    const foreign = await failure(other.run('return 1', on(state)));
    assert.equal(foreign.code, 'INVALID_ARGUMENT');
  } finally {
    await other.shutdown();
  }
});

test('a handle of a sidecar that has gone is a clear error, and a new state works', WATCHDOG, async () => {
  const mortal = newRuntime();
  try {
    const state = await mortal.createState({ n: 1 });
    const { pid } = await mortal.start();
    const pending = failure(mortal.run('await $ext.a.b(); return 1', { ...on(state), extensions: { a: { b: () => process.kill(pid, 'SIGKILL') && new Promise(() => undefined) } } }));
    assert.equal((await pending).code, 'SIDECAR_GONE');
    await ended(pid);
    for (const use of [() => mortal.run('return 1', on(state)), () => state.patch({}), () => state.snapshot(), () => mortal.executeHandler('return 1', on(state.exclusive()))]) {
      const error = await failure(use());
      assert.equal(error.code, 'SIDECAR_GONE');
      assert.equal(error.retryable, true);
      assert.match(error.message, /create it again/);
    }
    assert.equal(await state.dispose(), false);
    const again: ResidentState = await mortal.createState({ n: 2 });
    assert.equal((await mortal.run('return $state.n', on(again))).value, 2);
  } finally {
    await mortal.shutdown();
  }
});

test('states are counted, and let go', WATCHDOG, async () => {
  const before = (await runtime.getStats()).residentStates;
  const states = await Promise.all(Array.from({ length: 10 }, () => runtime.createState({ k: 'x'.repeat(1000) })));
  const stats = await runtime.getStats();
  assert.equal(stats.residentStates, before + 10);
  assert.ok(stats.residentStateBytes > 10_000);
  await Promise.all(states.map((state) => state.dispose()));
  assert.equal((await runtime.getStats()).residentStates, before);
});
