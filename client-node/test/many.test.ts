/** `runMany`: one request for many executions. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { NexusError, NexusRuntime, type ManyContext, type ManyOptions } from '@nexus/sidecar';

import { failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime();
after(() => runtime.shutdown());

const values = (results: { value?: unknown }[]): unknown[] => results.map(({ value }) => value);

test('results come in the order of the contexts, none and many frames of them', WATCHDOG, async () => {
  assert.deepEqual(await runtime.runMany('return 1', []), []);
  const numbers = Array.from({ length: 2_500 }, (_, n) => n);
  const contexts = numbers.map((n) => ({ args: { n } }));
  assert.deepEqual(values(await runtime.runMany('return $args.n * 2', contexts)), numbers.map((n) => n * 2));
  const large = await runtime.runMany('return $args.length', Array.from({ length: 12 }, (_, n) => ({ args: 'x'.repeat(500_000 + n) })));
  assert.deepEqual(values(large), Array.from({ length: 12 }, (_, n) => 500_000 + n));
});

test('handlers of one request may differ, and what they have in common is said once', WATCHDOG, async () => {
  const handle = await runtime.precompileHandler('return "compiled " + $scope.unit');
  const results = await runtime.runMany(
    [
      { code: 'return $args + $scope.unit', args: 1 },
      { code: handle },
      { code: 'return $scope', scope: { unit: 'own' } },
      { code: 'return $state.x', state: { x: 1 }, capabilities: ['state:read:x'] },
      { code: 'throw new TypeError("no")' },
    ],
    { scope: { unit: 'kg' } },
  );
  assert.deepEqual(values(results), ['1kg', 'compiled kg', { unit: 'own' }, 1, undefined]);
  assert.equal(results[4]?.error?.errorName, 'TypeError');
});

test('what goes wrong with one is its own, and its effects are told', WATCHDOG, async () => {
  const contexts = [{ args: 0 }, { args: 1, timeoutMs: 40 }, { args: 2 }, { args: 3 }];
  const source = `$emit('begun', $args); $log('at', $args);
    if ($args === 1) for (;;);
    if ($args === 2) { globalThis.left = 1; Array.prototype.map = null; throw new Error('two') }
    return [typeof left, typeof [].map]`;
  const results = await runtime.runMany(source, contexts, { capabilities: ['events:emit:begun'] });
  assert.deepEqual(results.map(({ status, error }) => error?.code ?? status), ['success', 'TIMEOUT', 'EXECUTION_ERROR', 'success']);
  assert.deepEqual(results[3]?.value, ['undefined', 'function']);
  for (const [at, result] of results.entries()) {
    assert.deepEqual([result.events.map(({ payload }) => payload), result.logs.map(({ message }) => message)], [[at], [`at ${at}`]]);
    assert.equal(result.segments.length, 1);
    assert.ok((result.metrics?.durationUs ?? 0) > 0);
  }
});

test('extensions are called for each, those behind go on, and all places are given back', WATCHDOG, async () => {
  const small = newRuntime({ maxSuspended: 3 });
  after(() => small.shutdown());
  let at = 0;
  let most = 0;
  const get = async (n: number): Promise<number> => {
    most = Math.max(most, ++at);
    await new Promise((resolve) => setImmediate(resolve));
    at--;
    if (n === 5) throw new Error('five');
    return n * 10;
  };
  const contexts = Array.from({ length: 20 }, (_, n) => ({ args: n, handlerName: `h${n}` }));
  const source = 'const r = []; for (let i = 0; i < 2; i++) r.push(await $ext.db.get($args)); return r';
  for (const round of [1, 2]) {
    const results = await small.runMany(source, contexts, { extensions: { db: { get } } });
    for (const [n, result] of results.entries()) {
      if (n === 5) assert.equal((result.error?.cause as Error).message, 'five', String(round));
      else assert.deepEqual([result.value, result.segments.length], [[n * 10, n * 10], 3]);
    }
  }
  assert.ok(most > 1 && most <= 3, `at once: ${most}`);
  assert.equal((await small.getStats()).suspendedInstances, 0);
});

test('a resident state is seen by each as the one before has left it', WATCHDOG, async () => {
  const state = await runtime.createState({ sum: 0 });
  const contexts = Array.from({ length: 1_200 }, (_, n) => ({ args: n }));
  const results = await runtime.runMany('return $state.sum += $args', contexts, { state, capabilities: ['state:read:sum', 'state:write:sum'] });
  assert.equal(results.at(-1)?.value, (1_199 * 1_200) / 2);
  assert.equal(results.at(-1)?.stateVersion, 1_201, 'adding 0 is a change too');
  const other = newRuntime();
  after(() => other.shutdown());
  assert.equal((await failure(other.runMany('return 1', [{ state }]))).code, 'INVALID_ARGUMENT');
});

test('an abort ends all of it', WATCHDOG, async () => {
  const controller = new AbortController();
  const contexts = [{ args: 1 }, { args: 0 }, { args: 1 }];
  const running = runtime.runMany('while (!$args); return $args', contexts, { signal: controller.signal, timeoutMs: 4_000 });
  while ((await runtime.listExecutions()).executions[0]?.state !== 'running') await new Promise((resolve) => setImmediate(resolve));
  controller.abort(new Error('enough'));
  const error = await failure(running);
  assert.deepEqual([error.code, error.name, (error.cause as Error).message], ['CANCELLED', 'AbortError', 'enough']);
  const { results } = error as unknown as { results: { value?: unknown }[] };
  assert.equal(results[0]?.value, 1);
  assert.equal((await runtime.listExecutions()).total, 0);
  const before = runtime.runMany('return 1', [{}], { signal: AbortSignal.abort() });
  assert.equal((await failure(before)).name, 'AbortError');
  // while extensions are at work, and before the sidecar has said anything
  const late = newRuntime();
  after(() => late.shutdown());
  for (let round = 0; round < 3; round++) {
    const again = new AbortController();
    const extensions = { a: { b: () => new Promise(() => queueMicrotask(() => again.abort())) } };
    const waiting = late.runMany('await $ext.a.b()', [{}, {}, {}], { extensions, signal: again.signal });
    if (round === 0) again.abort();
    assert.equal((await failure(waiting)).name, 'AbortError');
  }
});

test('a handle of a sidecar that has gone is compiled again', WATCHDOG, async () => {
  const mortal = newRuntime();
  after(() => mortal.shutdown());
  const handle = await mortal.precompileHandler('return $args + 1');
  const { pid } = await mortal.start();
  const dying = mortal.runMany('for (;;);', [{}, {}]);
  process.kill(pid, 'SIGKILL');
  assert.deepEqual((await dying).map(({ error }) => error?.code), ['SIDECAR_GONE', 'SIDECAR_GONE']);
  assert.deepEqual(values(await mortal.runMany(handle, [{ args: 1 }, { args: 2 }])), [2, 3]);
  assert.deepEqual(values(await mortal.runMany([{ code: handle, args: 1 }, { code: 'return 7' }])), [2, 7]);
});

test('limits that are wider than those in force are told', WATCHDOG, async () => {
  const results = await runtime.runMany('return 1', [{ limits: { maxEvents: 1 } }, { limits: { maxEvents: 1e9 } }, {}], { timeoutMs: 1e9 });
  assert.deepEqual(results.map(({ limited }) => Object.keys(limited ?? {})), [['timeoutMs'], ['maxEvents', 'timeoutMs'], ['timeoutMs']]);
});

test('values are taken when it is called, and one that cannot be sent is its own error', WATCHDOG, async () => {
  const one = { args: { n: 1 } };
  const throwing = { args: { get n(): never { throw new Error('mine') } } };
  class Json { toJSON(): never { throw new RangeError('not today') } }
  const cycle: { args: { self?: unknown } } = { args: {} };
  cycle.args.self = cycle;
  const contexts: ManyContext[] = [one, one, throwing, { args: { j: new Json() } }, cycle, { args: () => 1 }, one];
  const running = runtime.runMany('return $args?.n', contexts);
  one.args.n = 2;
  contexts.length = 0;
  const results = await running;
  assert.deepEqual(values(results), [1, 1, undefined, undefined, undefined, null, 1]);
  assert.deepEqual([2, 3, 4].map((at) => results[at]?.error?.code), Array<string>(3).fill('SERIALIZATION_ERROR'));
  assert.match(String(results[2]?.error?.message), /mine/);
  assert.ok((results[3]?.error?.cause ?? results[3]?.error) instanceof Error);
});

test('what is wrong with the call itself is refused before anything runs, and named', WATCHDOG, async () => {
  const { a, ...hole } = { a: 1 };
  const sparse = [{ args: 1 }, , { args: 2 }] as ManyContext[];
  const wrong: [unknown[], RegExp][] = [
    [['return 1', sparse], /contexts\[1\]: .*not an object/],
    [['return 1', [null]], /contexts\[0\]: .*not an object/],
    [['return 1', new Map()], /contexts are not an array/],
    [['return 1', undefined], /contexts are not an array/],
    [['return 1', [{}], { extension: {} }], /unknown option of `runMany` `extension`; did you mean `extensions`/],
    [['return 1', [{}], { onLog() {} }], /unknown option of `runMany` `onLog`/],
    [['return 1', [{ capabilites: [] }]], /contexts\[0\]: unknown field of a context `capabilites`; did you mean `capabilities`/],
    [['return 1', [{ timeoutMs: NaN }]], /contexts\[0\]: `timeoutMs`/],
    [['return 1', [{ code: 5 }]], /contexts\[0\]: the handler is not a string/],
    [['return 1', [{ lossy: 'throw' }]], /contexts\[0\]: unknown field/],
    [['return 1', [{ state: Buffer.of(0x80) }]], /contexts\[0\]: `state` is a Buffer/],
    [['return 1', [Promise.resolve({})]], /contexts\[0\]: it is an instance of Promise/],
    [['return 1', [{ limits: { maxEvents: -1 } }]], /contexts\[0\]: limit `maxEvents`/],
    [[[{ args: 1 }]], /contexts\[0\]: it has no `code`/],
    [[async () => 1, [{}]], /the handler is not a string/],
    [[null, [{}]], /the handler is not a string/],
    [['return 1', [{}], { signal: {} }], /`signal` is not an AbortSignal/],
    [['return 1', [{}], { lossy: 'maybe' }], /`lossy`/],
    [['return 1', [{}, { args: { f: hole, u: undefined } }], { lossy: 'throw' }], /contexts\[1\]: `args\.u` is undefined/],
  ];
  assert.equal(a, 1);
  const anything = runtime as unknown as { runMany(...args: unknown[]): Promise<unknown> };
  for (const [args, message] of wrong) {
    const error = await failure(anything.runMany(...args));
    assert.ok(error instanceof NexusError && /INVALID_ARGUMENT|SERIALIZATION_ERROR/.test(error.code), `${message}`);
    assert.match(error.message, message);
  }
});

test('types: results and extensions are checked as those of run', WATCHDOG, async () => {
  interface Options extends ManyOptions {}
  const options: Options = { labels: { tenant: 'a' } };
  const [first] = await runtime.runMany<number>('return 1', [{}], options);
  if (first?.status === 'success') assert.equal(first.value.toFixed(1), '1.0');
  // @ts-expect-error: a function is no extension
  await failure(runtime.runMany('return 1', [{}], { extensions: { log: (x: number) => x } }));
  assert.ok(runtime instanceof NexusRuntime);
});

test('-0 is 0 wherever a number says something of a request, and costs nobody the connection', WATCHDOG, async () => {
  const state = await runtime.createState({ n: 1 });
  assert.deepEqual(values(await runtime.runMany('return 1', [{ timeoutMs: -0 }, { seed: -0 }, { limits: { maxEvents: -0 } }])), [1, 1, 1]);
  assert.equal((await runtime.run('return 2', { timeoutMs: -0, seed: -0 })).value, 2);
  assert.equal((await runtime.executeHandler('return 3', {}, -0)).status, 'success');
  await assert.rejects(runtime.run('return 4', { state: state.expect(-0), capabilities: ['state:read:*'] }), /has version 1, not 0/);
  await runtime.killExecution(-0);
  assert.equal((await runtime.run('return $state.n', { state, capabilities: ['state:read:n'] })).value, 1);
  assert.ok(Object.is((await runtime.run('return $args', { args: -0 })).value, -0), 'a value keeps its sign');
  await state.dispose();
});

test('an abort while an extension works rejects the call, and what was done by then is told', WATCHDOG, async () => {
  const abort = new AbortController();
  const wait = (): Promise<number> =>
    new Promise((resolve) => {
      abort.abort();
      setTimeout(() => resolve(1), 50);
    });
  const contexts = [{ code: 'return 1' }, { code: 'return await $ext.a.wait()' }];
  const error = await failure(runtime.runMany(contexts, { signal: abort.signal, extensions: { a: { wait } } }));
  assert.equal(error.code, 'CANCELLED');
});

test('nothing that is given to runMany is ignored', WATCHDOG, async () => {
  const loose = runtime.runMany.bind(runtime) as (...given: unknown[]) => Promise<unknown>;
  for (const given of [[[{ code: 'return 1' }], {}, { bogus: 1 }], ['return 1', [], null], [[{ code: 'return 1' }], null]]) {
    await assert.rejects(loose(...given), { code: 'INVALID_ARGUMENT' }, JSON.stringify(given));
  }
});
