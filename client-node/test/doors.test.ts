/** The two dialect doors, field by field: the exact keys and types of every answer, with the real sidecar. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decode, encode } from '@msgpack/msgpack';
import { createRuntime, WasmRuntime, type KernelContext, type KernelResult, type ReactorContext } from '@nexus/sidecar';

import { ALL, sidecarBinary, WATCHDOG } from './sidecar.js';

const binaryPath = sidecarBinary();
const pack = (value: unknown): Buffer => Buffer.from(encode(value));
const keys = (value: object | undefined): string[] => Object.keys(value ?? {}).sort();

/** Everything that a handler can do, then two calls at once. */
const EFFECTS = `
  $state.a = { b: [1, null, 'x'] };
  delete $state.gone;
  $emit('named', { n: 1 });
  $emit.toast('hello');
  $view.setFilter('v1', 'open');
  $view.scrollTo('v2', 5);
  $view.focus('v3');
  $view.command('v4', 'flash', { times: 3 });
  const [x, y] = await Promise.all([$ext.http.get('u', 1), $ext.db.find({ q: 2 })]);
  $state.after = [x, y];
  return [x, y, $args, $scope.s];`;

function kernelContext(more: Partial<KernelContext> = {}): KernelContext {
  const context = { panelId: 'p', handlerName: 'h', state: pack({ gone: 1 }), args: pack(['arg']), scope: pack({ s: 's' }) };
  return { ...context, capabilities: ALL, ...more };
}

/** What every result of the kernel's dialect has, whatever its status. */
function assertKernelShape(result: KernelResult, optional: string[]): void {
  assert.deepEqual(keys(result), [...['status', 'stateMutations', 'events', 'viewCommands', 'logs', 'suspensions', 'metrics'], ...optional].sort());
  for (const list of [result.stateMutations, result.events, result.viewCommands, result.logs]) {
    assert.ok(Buffer.isBuffer(list) && Array.isArray(decode(list)), 'a list in a Buffer, also when it is empty');
  }
  assert.deepEqual(keys(result.metrics), ['cacheHit', 'executionTimeUs', 'hostCalls', 'memoryPeakBytes', 'memoryUsedBytes']);
  const { cacheHit, executionTimeUs, hostCalls, memoryPeakBytes, memoryUsedBytes } = result.metrics;
  assert.equal(typeof cacheHit, 'boolean');
  for (const figure of [executionTimeUs, hostCalls, memoryPeakBytes, memoryUsedBytes]) assert.ok(Number.isSafeInteger(figure) && figure >= 0);
  assert.ok(memoryUsedBytes > 0 && memoryPeakBytes >= memoryUsedBytes);
}

test('kernel: every field of a segment, of several calls outstanding, and of the end', WATCHDOG, async () => {
  const runtime = createRuntime({ binaryPath });
  const before = Date.now() - 1000;
  const first = await runtime.execute(EFFECTS, kernelContext(), 5000);
  assertKernelShape(first, ['suspension']);
  assert.equal(first.status, 'suspended');
  assert.deepEqual(decode(first.stateMutations), [{ op: 'set', key: 'a', value: { b: [1, null, 'x'] } }, { op: 'delete', key: 'gone' }]);
  const events = decode(first.events) as { name: string; payload: unknown; timestamp: number }[];
  assert.deepEqual(events.map(({ name, payload }) => ({ name, payload })), [
    { name: 'named', payload: { n: 1 } },
    { name: 'toast', payload: { message: 'hello', level: 'info' } },
  ]);
  for (const event of events) {
    assert.deepEqual(keys(event), ['name', 'payload', 'timestamp']);
    assert.ok(event.timestamp > before && event.timestamp < Date.now() + 1000);
  }
  assert.deepEqual(decode(first.viewCommands), [
    { viewId: 'v1', command: 'setFilter', params: { value: 'open' } },
    { viewId: 'v2', command: 'scrollTo', params: { position: 5 } },
    { viewId: 'v3', command: 'focus', params: {} },
    { viewId: 'v4', command: 'flash', params: { times: 3 } },
  ]);
  assert.deepEqual(first.suspension, first.suspensions[0]);
  assert.deepEqual(
    first.suspensions.map(({ extensionName, method, args }) => [extensionName, method, Buffer.isBuffer(args) && decode(args)]),
    [['http', 'get', ['u', 1]], ['db', 'find', [{ q: 2 }]]],
  );
  for (const suspension of first.suspensions) {
    assert.deepEqual(keys(suspension), ['args', 'extensionName', 'method', 'suspensionId']);
    assert.match(suspension.suspensionId, /^[0-9a-f]{32}$/);
  }

  // A loop that knows `suspension` only.
  const second = await runtime.resume(first.suspension!.suspensionId, { success: true, value: pack('X') });
  assertKernelShape(second, ['suspension']);
  assert.deepEqual([second.suspensions.length, second.suspension?.method], [1, 'find']);
  assert.deepEqual([second.stateMutations, second.events, second.viewCommands].map((list) => decode(list)), [[], [], []]);
  const last = await runtime.resume(second.suspension!.suspensionId, { success: true, value: pack('Y') });
  assertKernelShape(last, ['returnValue']);
  assert.equal(last.status, 'success');
  assert.ok(Buffer.isBuffer(last.returnValue));
  assert.deepEqual(decode(last.returnValue), ['X', 'Y', ['arg'], 's']);
  assert.deepEqual(decode(last.stateMutations), [{ op: 'set', key: 'after', value: ['X', 'Y'] }]);
  assert.deepEqual(last.suspensions, []);
  assert.ok(last.metrics.hostCalls > first.metrics.hostCalls - 1);
  await runtime.shutdown();
});

test('kernel: errors are flat, with line, column and sourceSnippet', WATCHDOG, async () => {
  for (const debug of [true, false]) {
    const runtime = createRuntime({ binaryPath, debug });
    const result = await runtime.execute('const a = 1;\n  throw new TypeError("no")', kernelContext());
    assertKernelShape(result, ['error']);
    const { error } = result;
    assert.deepEqual(keys(error), debug ? ['code', 'column', 'line', 'message', 'sourceSnippet'] : ['code', 'column', 'line', 'message']);
    assert.deepEqual([error?.code, error?.line], ['EXECUTION_ERROR', 2]);
    assert.ok(Number.isSafeInteger(error?.column) && error!.column! >= 3);
    assert.match(error?.message ?? '', /no/);
    if (debug) assert.match(error?.sourceSnippet ?? '', /throw new TypeError/);
    const denied = await runtime.execute('return $state.x', kernelContext({ capabilities: [] }));
    assert.equal(denied.error?.code, 'PERMISSION_DENIED');
    await runtime.shutdown();
  }
});

test('kernel: getStats and getMetrics are synchronous, copies, and have all their fields', WATCHDOG, async () => {
  const runtime = createRuntime({ binaryPath });
  const fields = (
    'totalExecutions activeInstances availableInstances suspendedInstances cacheHitRate avgExecutionTimeUs p50ExecutionTimeUs ' +
    'p95ExecutionTimeUs p99ExecutionTimeUs totalMemoryBytes instancesCreated instancesReused cacheEntries cacheSizeBytes queued uptimeMs'
  ).split(' ') as (keyof ReturnType<typeof runtime.getStats>)[];
  for (const name of fields) assert.equal(runtime.getStats()[name], 0, `${name} before the first result`);
  const suspended = await runtime.execute('return await $ext.a.b()', kernelContext());
  while (runtime.getStats().suspendedInstances !== 1) await new Promise((resolve) => setTimeout(resolve, 10));
  await runtime.resume(suspended.suspension!.suspensionId, { success: true, value: pack(1) });
  while (runtime.getStats().totalExecutions !== 1) await new Promise((resolve) => setTimeout(resolve, 10));
  for (const name of fields) assert.equal(typeof runtime.getStats()[name], 'number', name);
  runtime.getStats().totalExecutions = 99;
  assert.equal(runtime.getStats().totalExecutions, 1);
  assert.match(runtime.getMetrics(), /^nexus_handler_executions_total\{status="success"\} 1$/m);
  await runtime.shutdown();
});

test('either door: a registry that is absent means that the client knows, one that is there is believed', WATCHDOG, async () => {
  const kernel = createRuntime({ binaryPath });
  assert.equal((await kernel.execute('return await $ext.any.thing()', kernelContext())).status, 'suspended');
  const refused = await kernel.execute('return await $ext.any.thing()', kernelContext({ extensionRegistry: { other: ['x'] } }));
  assert.equal(refused.error?.code, 'EXTENSION_NOT_FOUND');
  await kernel.shutdown();

  const reactor = new WasmRuntime({ binaryPath });
  const context: ReactorContext = { stateSnapshot: {}, capabilities: ALL };
  assert.equal((await reactor.executeHandler('return await $ext.any.thing()', context)).status, 'suspended');
  // Its registry lists no methods of a class instance: that is no registry.
  const unlisted = { ...context, extensionRegistry: { any: [] } };
  assert.equal((await reactor.executeHandler('return await $ext.any.thing()', unlisted)).status, 'suspended');
  const listed = await reactor.executeHandler('return await $ext.any.other()', { ...context, extensionRegistry: { any: ['thing'] } });
  assert.equal(listed.error?.code, 'METHOD_NOT_FOUND');
  await reactor.shutdown();
});

test('reactor: every field of a segment, of several calls outstanding, and of the end', WATCHDOG, async () => {
  const runtime = new WasmRuntime({ binaryPath });
  const context = { panelId: 'p', handlerName: 'h', stateSnapshot: { gone: 1 }, args: ['arg'], scope: { s: 's' }, capabilities: ALL };
  const first = await runtime.executeHandler(EFFECTS, context, 5000);
  const always = ['events', 'logs', 'metrics', 'stateMutations', 'status', 'suspensions', 'viewCommands'];
  assert.deepEqual(keys(first), [...always, 'suspension'].sort());
  assert.deepEqual(first.stateMutations, [
    { operation: 'set', key: 'a', value: { b: [1, null, 'x'] } },
    { operation: 'delete', key: 'gone' },
  ]);
  assert.deepEqual(first.events.map(({ name, payload, timestamp }) => [name, payload, typeof timestamp]), [
    ['named', { n: 1 }, 'number'],
    ['toast', { message: 'hello', level: 'info' }, 'number'],
  ]);
  assert.deepEqual(first.viewCommands, [
    { type: 'setFilter', componentId: 'v1', args: { value: 'open' } },
    { type: 'scrollTo', componentId: 'v2', args: { position: 5 } },
    { type: 'focus', componentId: 'v3', args: {} },
    { type: 'custom', componentId: 'v4', args: { command: 'flash', times: 3 } },
  ]);
  assert.deepEqual(first.suspension, first.suspensions[0]);
  assert.deepEqual(first.suspensions.map(({ extensionName, method, args }) => [extensionName, method, args]), [
    ['http', 'get', ['u', 1]],
    ['db', 'find', [{ q: 2 }]],
  ]);
  const metrics = ['cacheHit', 'durationUs', 'hostCalls', 'instructionCount', 'memoryPeakBytes', 'memoryUsedBytes'];
  assert.deepEqual(keys(first.metrics).filter((key) => key !== 'compilationTimeUs'), metrics);
  assert.equal(first.metrics.cacheHit || typeof first.metrics.compilationTimeUs === 'number', true);
  assert.ok(Object.values(first.metrics.hostCalls).every(Number.isSafeInteger) && Object.keys(first.metrics.hostCalls).length > 0);

  const second = await runtime.resumeHandler(first.suspension!.suspensionId, { success: true, value: 'X' });
  assert.deepEqual([second.status, second.suspension?.method, second.suspensions.length], ['suspended', 'find', 1]);
  assert.deepEqual([second.stateMutations, second.events, second.viewCommands], [[], [], []]);
  const last = await runtime.resumeHandler(second.suspension!.suspensionId, { success: true, value: 'Y' });
  assert.deepEqual(keys(last), [...always, 'returnValue'].sort());
  assert.deepEqual(last.returnValue, ['X', 'Y', ['arg'], 's']);
  assert.deepEqual(last.stateMutations, [{ operation: 'set', key: 'after', value: ['X', 'Y'] }]);
  await runtime.shutdown();
});

test('reactor: errors are {code, message, stack?, location?, snippet?}', WATCHDOG, async () => {
  for (const debug of [true, false]) {
    const runtime = new WasmRuntime({ binaryPath, debug });
    const { status, error } = await runtime.executeHandler('const a = 1;\n  throw new TypeError("no")', { capabilities: ALL });
    assert.equal(status, 'error');
    assert.deepEqual(keys(error), debug ? ['code', 'location', 'message', 'snippet', 'stack'] : ['code', 'location', 'message']);
    assert.deepEqual([error?.code, keys(error?.location), error?.location?.line], ['EXECUTION_ERROR', ['column', 'line'], 2]);
    if (debug) assert.match(error?.snippet ?? '', /throw new TypeError/);
    await runtime.shutdown();
  }
});
