/** Configuration, environment, argument checks: nothing here starts a sidecar. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { applyMutations, configFromEnv, NexusError, NexusRuntime } from '@nexus/sidecar';
import { checkConfig } from '../dist/esm/config.js';
import { Handles } from '../dist/esm/handles.js';

const invalid = (text: RegExp) => (error: unknown) =>
  error instanceof NexusError && error.code === 'INVALID_ARGUMENT' && text.test(error.message);

test('options become flags in kebab case', () => {
  const { flags } = checkConfig({
    maxInstances: 4,
    enableAOT: false,
    enableSIMD: true,
    cacheDir: '/tmp/c',
    quickjsModulePath: '/q.wasm',
    maxCacheSizeBytes: 5,
    debug: true,
    timeoutMs: undefined,
  });
  assert.deepEqual(flags, [
    '--max-instances=4', '--enable-aot=false', '--enable-simd=true', '--cache-dir=/tmp/c',
    '--quickjs-module-path=/q.wasm', '--max-cache-size-bytes=5', '--debug=true',
  ]);
});

test('unknown options and wrong types are errors that name the option, what it must be and what it is', () => {
  assert.throws(() => new NexusRuntime({ maxInstance: 4 } as never), invalid(/maxInstance/));
  const wrong: [object, string][] = [
    [{ maxInstances: '4' }, "`maxInstances` must be a whole number, 0 or more; it is '4'"],
    [{ timeoutMs: 1.5 }, '`timeoutMs` must be a whole number, 0 or more; it is 1.5'],
    [{ maxQueued: -1n }, '`maxQueued` must be a whole number, 0 or more; it is -1n'],
    [{ debug: 1 }, '`debug` must be a boolean; it is 1'],
    [{ env: null }, '`env` must be an object; it is null'],
    [{ cacheDir: { a: { b: 1 } } }, '`cacheDir` must be a string; it is { a: [Object] }'],
  ];
  for (const [config, message] of wrong) assert.throws(() => new NexusRuntime(config), { code: 'INVALID_ARGUMENT', message });
  assert.throws(() => new NexusRuntime({ connect: 'x'.repeat(10_000), onLog: 'x'.repeat(10_000) } as never), ({ message }: Error) => message.length < 300);
  assert.throws(() => new NexusRuntime(null as never), invalid(/object/));
  assert.throws(() => new NexusRuntime({ connect: '/s', maxInstances: 1 }), invalid(/--max-instances/));
  assert.throws(() => new NexusRuntime({ ['constructor']: 1 } as never), invalid(/constructor/));
});

test('configFromEnv reads the six variables and passes over unset ones', () => {
  assert.deepEqual(configFromEnv({}), {});
  assert.deepEqual(configFromEnv({ MAX_INSTANCES: '', CACHE_DIR: '', OTHER: 'x' }), {});
  assert.deepEqual(
    configFromEnv({
      MAX_INSTANCES: '20', MIN_INSTANCES: ' 2 ', MEMORY_LIMIT_MB: '64', TIMEOUT_MS: '0', MAX_HOST_CALLS: '9', CACHE_DIR: '/c',
    }),
    { maxInstances: 20, minInstances: 2, memoryLimitBytes: 64 * 1024 * 1024, timeoutMs: 0, maxHostCalls: 9, cacheDir: '/c' },
  );
});

test('configFromEnv names the variable that is wrong', () => {
  for (const name of ['MAX_INSTANCES', 'MIN_INSTANCES', 'MEMORY_LIMIT_MB', 'TIMEOUT_MS', 'MAX_HOST_CALLS']) {
    for (const value of ['ten', '10k', '-1', '1.5', '0x10', '1e3', '99999999999999999999']) {
      assert.throws(() => configFromEnv({ [name]: value }), invalid(new RegExp(name)), `${name}=${value}`);
    }
  }
});

test('arguments that would make a frame malformed are refused before anything is started', async () => {
  const runtime = new NexusRuntime({ binaryPath: '/nonexistent' });
  const context = (extra: object) => runtime.executeHandler('return 1', extra as never);
  await assert.rejects(runtime.executeHandler(5 as never), invalid(/handler/));
  await assert.rejects(runtime.executeHandler('', null as never), invalid(/context/));
  await assert.rejects(runtime.executeHandler('', {}, -1), invalid(/timeoutMs/));
  await assert.rejects(runtime.executeHandler('', {}, NaN), invalid(/timeoutMs/));
  await assert.rejects(context({ panelId: 5 }), invalid(/panelId/));
  await assert.rejects(context({ handlerName: 'ä'.repeat(129) }), invalid(/handlerName/));
  await assert.rejects(context({ capabilities: 'state:read:a' }), invalid(/capabilities/));
  await assert.rejects(context({ capabilities: [, 'x'] }), invalid(/capabilities/));
  await assert.rejects(context({ extensionRegistry: { http: 'get' } }), invalid(/extensionRegistry/));
  await assert.rejects(context({ limits: { maxEvents: -1 } }), invalid(/maxEvents/));
  await assert.rejects(context({ seed: 2n ** 64n }), invalid(/seed/));
  await assert.rejects(context({ strictCapabilities: 1 }), invalid(/strictCapabilities/));
  await assert.rejects(runtime.executeCompiledHandler('text' as never), invalid(/compiled/));
  await assert.rejects(runtime.resumeHandler('a'.repeat(32), 5 as never), invalid(/success/));
  await assert.rejects(runtime.resumeHandler(5 as never, { success: true }), invalid(/suspension/));
});

test('an error prints and serialises with its fields and without those that are absent', () => {
  const error = new NexusError('RESOURCE_LIMIT', 'too much', { context: { resource: 'events', limit: 100 } });
  assert.deepEqual(JSON.parse(JSON.stringify(error)), {
    code: 'RESOURCE_LIMIT', message: 'too much', retryable: false, context: { resource: 'events', limit: 100 },
  });
  assert.deepEqual(Object.keys(error).sort(), ['code', 'context', 'retryable']);
  assert.equal(new NexusError('SIDECAR_GONE', '').retryable, true);
});

test('applyMutations sets and deletes in order, on a copy, __proto__ included', () => {
  const state = { a: 1, b: 2 };
  const next = applyMutations(state, [
    { op: 'set', key: 'a', value: 5 },
    { op: 'delete', key: 'b' },
    { op: 'set', key: 'b', value: 6 },
    { op: 'delete', key: 'a' },
    { op: 'set', key: '__proto__', value: { polluted: true } },
  ]);
  assert.deepEqual(state, { a: 1, b: 2 });
  assert.deepEqual(Object.keys(next), ['b', '__proto__']);
  assert.equal(Object.getPrototypeOf(next), Object.prototype);
});

test('remembered handles are bounded by number and by size, and the one used longest ago goes first', () => {
  const handles = new Handles();
  const handle = (index: number): Buffer => Buffer.from(`handle ${index}`);
  for (let index = 0; index < 1000; index++) handles.remember(handle(index), 'x');
  assert.equal(handles.find(handle(0))?.source, 'x');
  handles.remember(handle(1000), 'x');
  assert.equal(handles.find(handle(1)), undefined);
  assert.ok(handles.find(handle(0)) !== undefined);
  handles.remember(handle(2000), 'y'.repeat(16 * 1024 * 1024));
  assert.equal(handles.find(handle(0)), undefined);
  assert.ok(handles.find(handle(2000)) !== undefined);
});
