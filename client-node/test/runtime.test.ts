/** NexusRuntime against the real sidecar. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { decodePayload, encodePayload, type BufferResult } from '@nexus/sidecar';

import { ALL, failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ debug: true, maxInstances: 4, timeoutMs: 20_000 });
after(() => runtime.shutdown());

test('plain values in, plain values out, with every effect', WATCHDOG, async () => {
  const code = `
    $state.count = $state.count + $args.by;
    delete $state.old;
    $emit('counted', { n: $state.count });
    $view.focus('field');
    $view.setFilter('list', 'x');
    $log.warn('careful');
    return { count: $state.count, scope: $scope.item };`;
  const before = Date.now();
  const result = await runtime.executeHandler(code, {
    panelId: 'panel',
    handlerName: 'count',
    state: { count: 1, old: true },
    args: { by: 2 },
    scope: { item: 'i' },
    capabilities: ALL,
  });
  assert.equal(result.error, undefined);
  assert.equal(result.status, 'success');
  assert.equal(result.seq, 0);
  assert.deepEqual(result.returnValue, { count: 3, scope: 'i' });
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'count', value: 3 }, { op: 'delete', key: 'old' }]);
  assert.equal(result.events.length, 1);
  assert.equal(result.events[0]?.name, 'counted');
  assert.deepEqual(result.events[0]?.payload, { n: 3 });
  assert.ok(Math.abs((result.events[0]?.timestamp ?? 0) - before) < 10_000);
  assert.deepEqual(result.viewCommands, [
    { viewId: 'field', command: 'focus', params: {} },
    { viewId: 'list', command: 'setFilter', params: { value: 'x' } },
  ]);
  assert.equal(result.logs.length, 1);
  assert.equal(result.logs[0]?.level, 'warn');
  assert.equal(result.logs[0]?.message, 'careful');
  assert.deepEqual(result.suspensions, []);
  assert.equal(result.suspension, undefined);
  assert.ok(result.metrics.durationUs > 0);
  assert.ok(Object.values(result.metrics.hostCalls).reduce((sum, count) => sum + count, 0) >= 4);
});

test('Buffers in, Buffers out; an empty Buffer is nothing', WATCHDOG, async () => {
  const context = { state: encodePayload({ a: 1 }), args: Buffer.alloc(0), scope: Buffer.alloc(0), capabilities: ALL };
  const result: BufferResult = await runtime.executeHandler('$state.a = 2; return [$args, $scope]', context);
  assert.equal(result.status, 'success');
  assert.ok(Buffer.isBuffer(result.returnValue));
  assert.deepEqual(decodePayload(result.returnValue), [null, {}]);
  assert.deepEqual(decodePayload(result.stateMutations), [{ op: 'set', key: 'a', value: 2 }]);
  for (const list of [result.events, result.viewCommands, result.logs]) assert.deepEqual(decodePayload(list), []);
});

test('values keep their types on the way in and out', WATCHDOG, async () => {
  const hostile = JSON.parse('{"__proto__": {"polluted": true}, "constructor": 1}') as object;
  const values = [
    null, true, -0, 1.5, 2 ** 53 - 1, -(2 ** 53) + 1, 2n ** 60n, -(2n ** 63n), 2n ** 64n - 1n, 'tëxt 👍', new Uint8Array([0, 255]),
    new Date(1_700_000_000_123), [[], {}], { a: { b: [1] } }, Infinity, hostile,
  ];
  const result = await runtime.executeHandler('return $args', { args: values });
  assert.deepEqual(result.returnValue, values);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

test('what MessagePack cannot carry rejects here, before anything is sent', WATCHDOG, async () => {
  const cycle: unknown[] = [];
  cycle.push(cycle);
  assert.equal((await failure(runtime.executeHandler('return 1', { args: cycle }))).code, 'SERIALIZATION_ERROR');
  const thrower = { get x(): never { throw new Error('getter'); } };
  await assert.rejects(runtime.executeHandler('return 1', { args: thrower }), /getter/);
  await runtime.ping();
});

test('a getter that makes a request of its own while its value is encoded breaks neither', WATCHDOG, async () => {
  let inner: Promise<unknown> | undefined;
  const args = { get x() { inner = runtime.executeHandler('return $args', { args: 'inner' }); return 1; }, y: 2 };
  const outer = await runtime.executeHandler('return $args', { args });
  assert.deepEqual(outer.returnValue, { x: 1, y: 2 });
  assert.equal((await inner as { returnValue: unknown }).returnValue, 'inner');
});

test('a handler that throws is a result with the place in its own source', WATCHDOG, async () => {
  const result = await runtime.executeHandler('const a = 1;\nif (a) {\n  throw new TypeError("no " + a);\n}');
  assert.equal(result.status, 'error');
  assert.equal(result.error?.code, 'EXECUTION_ERROR');
  assert.match(result.error?.message ?? '', /no 1/);
  assert.equal(result.error?.errorName, 'TypeError');
  assert.equal(result.error?.location?.line, 3);
  assert.equal(result.error?.retryable, false);
  const snippet = result.error?.snippet;
  assert.match(snippet?.code.split('\n')[(snippet.highlightLine ?? 0) - 1] ?? '', /throw new TypeError/);
  assert.match(result.error?.stack ?? '', /no 1/);
});

test('effects before an error are delivered with it', WATCHDOG, async () => {
  const result = await runtime.executeHandler('$state.a = 1; throw new Error("x")', { capabilities: ALL });
  assert.equal(result.status, 'error');
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'a', value: 1 }]);
});

test('a missing capability names its token', WATCHDOG, async () => {
  const result = await runtime.executeHandler('\nreturn $state.secret', { state: { secret: 1 }, capabilities: ['state:read:open'] });
  assert.equal(result.error?.code, 'PERMISSION_DENIED');
  assert.equal(result.error?.capability, 'state:read:secret');
  assert.equal(result.error?.location?.line, 2);
});

test('an endless loop ends in TIMEOUT, a flood in RESOURCE_LIMIT with its numbers', WATCHDOG, async () => {
  const loop = await runtime.executeHandler('for (;;);', {}, 50);
  assert.equal(loop.error?.code, 'TIMEOUT');
  const flood = await runtime.executeHandler('for (let i = 0; i < 100; i++) $emit("e", i)', { capabilities: ALL, limits: { maxEvents: 5 } });
  assert.equal(flood.error?.code, 'RESOURCE_LIMIT');
  assert.equal(flood.error?.context?.['limit'], 5);
  assert.equal(flood.events.length, 5);
});

test('a handler with a syntax error fails in every way of compiling it', WATCHDOG, async () => {
  const code = 'const a = 1;\nconst b = 2;\nconst = 3;';
  const result = await runtime.executeHandler(code);
  assert.equal(result.error?.code, 'COMPILATION_ERROR');
  assert.equal(result.error?.location?.line, 3);
  for (const call of [runtime.precompileHandler(code), runtime.inferCapabilities(code), runtime.checkHandler(code)]) {
    const error = await failure(call);
    assert.equal(error.code, 'COMPILATION_ERROR');
    assert.equal(error.location?.line, 3);
  }
});

test('a compiled handler runs; a forged handle does not', WATCHDOG, async () => {
  const handle = await runtime.precompileHandler('return $args + 1');
  assert.ok(Buffer.isBuffer(handle));
  for (const args of [1, 2]) {
    assert.equal((await runtime.executeCompiledHandler(handle, { args })).returnValue, args + 1);
  }
  const inBuffers = await runtime.executeCompiledHandler(handle, { state: encodePayload({}), args: encodePayload(5) });
  assert.deepEqual(inBuffers.returnValue, encodePayload(6));
  const forged = Buffer.from(handle);
  forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
  const result = await runtime.executeCompiledHandler(forged).catch((error: unknown) => ({ error }));
  assert.equal((result.error as { code?: string }).code, 'INVALID_HANDLER');
});

test('an unknown capability token is refused by name', WATCHDOG, async () => {
  const result = await runtime.executeHandler('return 1', { capabilities: ['state:peek:a'] }).catch((error: unknown) => ({ error }));
  const error = result.error as { code?: string; message?: string };
  assert.equal(error.code, 'INVALID_ARGUMENT');
  assert.match(error.message ?? '', /state:peek:a/);
});

test('capabilities and the suspend mode come from the source', WATCHDOG, async () => {
  const code = `$state.total = $state.a; $emit('done'); await $ext.http.get('x')`;
  const capabilities = await runtime.inferCapabilities(code);
  for (const token of ['state:read:a', 'state:write:total', 'events:emit:done', 'ext:http.get']) {
    assert.ok(capabilities.includes(token), `${token} in ${capabilities.join(', ')}`);
  }
  assert.equal((await runtime.checkHandler(code)).suspendMode, 'await');
  assert.equal((await runtime.checkHandler('const r = $ext.http.get("x"); return r')).suspendMode, 'stack');
});

test('a check says why, what is certain, what looks wrong and what could not be read', WATCHDOG, async () => {
  const code = 'async function f() {}\nif ($args) $state.n = 1;\nreturn $ext.a.b().c + $state.m';
  const message = '`$ext.a.b()` at 3:8 is a promise here, since the handler mentions `async` at 1:1; await it';
  const warnings = [{ message, line: 3, column: 8 }];
  assert.deepStrictEqual(await runtime.checkHandler(code), {
    capabilities: ['ext:a.b', 'state:read:m', 'state:write:n'],
    certain: ['state:read:m'],
    suspendMode: 'await',
    suspendReason: '`async` at 1:1',
    warnings,
  });
  const result = await runtime.executeHandler(code, { capabilities: ['state:read:m', 'ext:a.b'] });
  assert.deepStrictEqual(result.warnings, warnings);
  assert.ok(!('warnings' in (await runtime.executeHandler('return 1'))));
  const run = await runtime.run('const n = $ext.a.b(1) + 1;\nawait 0;\nreturn n', { extensions: { a: { b: (n: number) => n } } });
  assert.deepStrictEqual(run.warnings, run.segments[0]?.warnings);
  assert.equal(run.warnings?.[0]?.line, 1);
  assert.ok(!('warnings' in (await runtime.run('return 1'))));
  const { unparsed, capabilities } = await runtime.checkHandler("<!-- it's\nreturn 1");
  assert.equal(typeof unparsed?.message, 'string');
  assert.ok(capabilities.includes('state:read:*') && capabilities.includes('ext:*'));
});

test('one call at a time through `suspension` works with several outstanding', WATCHDOG, async () => {
  const code = `
    $state.loading = true;
    const [a, b] = await Promise.all([$ext.one.get('x', 1), $ext.two.put()]);
    $state.loading = false;
    return [a, b];`;
  let result = await runtime.executeHandler(code, { capabilities: ALL });
  assert.equal(result.status, 'suspended');
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'loading', value: true }]);
  assert.deepEqual(
    result.suspensions.map(({ extensionName, method, args }) => [extensionName, method, args]),
    [['one', 'get', ['x', 1]], ['two', 'put', []]],
  );
  for (let seq = 1; result.suspension !== undefined; seq++) {
    result = await runtime.resumeHandler(result.suspension.suspensionId, { success: true, value: result.suspension.method });
    assert.equal(result.seq, seq);
  }
  assert.deepEqual(result.returnValue, ['get', 'put']);
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'loading', value: false }]);
});

test('resuming an execution in Buffers answers in Buffers', WATCHDOG, async () => {
  const code = 'const r = await $ext.a.b(1); return r';
  const first = await runtime.executeHandler(code, { state: encodePayload({}), capabilities: ALL });
  assert.deepEqual(first.suspension?.args, encodePayload([1]));
  const id = first.suspension?.suspensionId ?? '';
  const last = await runtime.resumeHandler(id, { success: true, value: encodePayload({ ok: true }) });
  assert.deepEqual(last.returnValue, encodePayload({ ok: true }));
  assert.deepEqual(last.stateMutations, encodePayload([]));
});

test('a failed call can be caught in the handler, with its code', WATCHDOG, async () => {
  const code = 'try { await $ext.a.b() } catch (e) { return [e.message, e.name, e.code, e.extension, e.method] }';
  const outcomes = [
    [{ message: 'gone', name: 'HttpError', code: 'E404' }, ['gone', 'HttpError', 'E404', 'a', 'b']],
    ['just text', ['just text', 'Error', undefined, 'a', 'b']],
  ] as const;
  for (const [error, expected] of outcomes) {
    const first = await runtime.executeHandler(code, { capabilities: ALL });
    const last = await runtime.resumeHandler(first.suspension?.suspensionId ?? '', { success: false, error });
    assert.deepEqual(last.returnValue, expected.map((item) => item ?? null));
  }
});

test('a suspension is used once; used, unknown and malformed ids fail alike', WATCHDOG, async () => {
  const first = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  const id = first.suspension?.suspensionId ?? '';
  const [one, two] = await Promise.all([1, 2].map((value) => settle(runtime.resumeHandler(id, { success: true, value }))));
  const codes = [one, two].map((result) => result?.error?.code);
  assert.deepEqual(codes.filter((code) => code === undefined).length, 1);
  assert.ok(codes.includes('SUSPENSION_ERROR'));
  for (const unknown of [id, 'f'.repeat(32), 'nonsense']) {
    assert.equal((await settle(runtime.resumeHandler(unknown, { success: true }))).error?.code, 'SUSPENSION_ERROR');
  }
});

async function settle<T extends { error?: { code: string } }>(promise: Promise<T>): Promise<{ error?: { code: string } }> {
  return promise.catch((error: unknown) => ({ error: error as { code: string } }));
}

test('cancel ends a suspended execution, once', WATCHDOG, async () => {
  const first = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  const id = first.suspension?.suspensionId ?? '';
  assert.equal(await runtime.cancel(id), true);
  assert.equal(await runtime.cancel(id), false);
  assert.equal((await settle(runtime.resumeHandler(id, { success: true }))).error?.code, 'SUSPENSION_ERROR');
});

test('executions are listed without their values, and can be killed', WATCHDOG, async () => {
  const busy = runtime.executeHandler('for (;;);', { panelId: 'orders', handlerName: 'spin' }, 60_000);
  const find = async () => (await runtime.listExecutions()).executions.find(({ handlerName }) => handlerName === 'spin');
  let found = await find();
  while (found?.state !== 'running') found = await find();
  assert.equal(found.panelId, 'orders');
  assert.match(found.client, /sidecar/);
  assert.equal(await runtime.killExecution(found.id), true);
  assert.equal((await busy).error?.code, 'CANCELLED');
  assert.equal(await runtime.killExecution(found.id), false);
});

test('statistics, metrics, ping and hello answer while handlers run', WATCHDOG, async () => {
  const busy = runtime.executeHandler('for (;;);', {}, 300);
  const [info, stats, text] = await Promise.all([runtime.start(), runtime.getStats(), runtime.getPrometheusMetrics(), runtime.ping()]);
  assert.equal(info.version, 2);
  assert.equal(info.debug, true);
  assert.ok(info.pid > 1);
  assert.equal(info.limits['timeoutMs'], 20_000);
  assert.ok(stats.totalExecutions > 0);
  assert.ok(stats.cacheHitRate >= 0 && stats.cacheHitRate <= 1);
  assert.match(text, /nexus_handler_executions_total/);
  assert.equal((await busy).error?.code, 'TIMEOUT');
});
