/** What a handler throws, as each of the three callers gets it; and handles that a sidecar has forgotten. */
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { createRuntime, HandlerError, WasmRuntime } from '@nexus/sidecar';

import { ended, failure, newFolder, newRuntime, sidecarBinary, WATCHDOG } from './sidecar.js';

const binaryPath = sidecarBinary();
const THROWS = `const root = Object.assign(new TypeError('root'), { code: 'E_ROOT' });
throw Object.assign(new Error('top', { cause: new Error('middle', { cause: root }) }), { status: 503 })`;

test('run throws an error with the causes and own fields of the handler\'s', WATCHDOG, async () => {
  const runtime = newRuntime();
  const error = await failure(runtime.run(THROWS));
  assert.deepEqual([error.code, error.errorName, error.location?.line], ['EXECUTION_ERROR', 'Error', 2]);
  assert.match(error.message, /top/);
  assert.deepEqual(error.properties, { status: 503 });
  const middle = error.cause;
  assert.ok(middle instanceof HandlerError);
  assert.deepEqual([middle.name, middle.message, middle.properties], ['Error', 'middle', undefined]);
  const root = middle.cause;
  assert.ok(root instanceof HandlerError);
  assert.deepEqual([root.name, root.message, root.code, root.properties], ['TypeError', 'root', 'E_ROOT', { code: 'E_ROOT' }]);
  assert.equal(Object.hasOwn(root, 'cause'), false);
  assert.deepEqual((await failure(runtime.run('throw new Error("x", { cause: [1] })'))).cause, [1]);
  const inResult = (await runtime.executeHandler(THROWS)).error;
  assert.deepEqual(inResult?.properties, { status: 503 });
  await runtime.shutdown();
});

test('both dialects keep code, message and place of an error that has causes and fields', WATCHDOG, async () => {
  const kernel = createRuntime({ binaryPath });
  const none = Buffer.alloc(0);
  const context = { panelId: 'p', handlerName: 'h', capabilities: [] };
  const flat = (await kernel.execute(THROWS, { ...context, state: none, args: none, scope: none }, 5000)).error;
  assert.deepEqual([flat?.code, flat?.line], ['EXECUTION_ERROR', 2]);
  assert.match(flat?.message ?? '', /top/);
  await kernel.shutdown();
  const reactor = new WasmRuntime({ binaryPath });
  const nested = (await reactor.executeHandler(THROWS, { ...context, stateSnapshot: {}, args: {}, scope: {} }, 5000)).error;
  assert.deepEqual([nested?.code, nested?.location?.line], ['EXECUTION_ERROR', 2]);
  assert.match(nested?.message ?? '', /top/);
  await reactor.shutdown();
});

for (const lost of ['the entry of the cache', 'the whole cache'] as const) {
  test(`a compiled handler is compiled again when the next sidecar lacks ${lost}`, WATCHDOG, async () => {
    const cacheDir = newFolder('errors');
    const runtime = newRuntime({ cacheDir });
    const compiled = await runtime.precompileHandler('return $args * 2');
    const { pid } = await runtime.start();
    process.kill(pid, 'SIGKILL');
    await ended(pid);
    for (const name of readdirSync(cacheDir)) if (lost === 'the whole cache' || name.endsWith('.qjsc')) rmSync(join(cacheDir, name));
    for (const args of [1, 2]) {
      const result = await runtime.executeCompiledHandler(compiled, { args });
      assert.deepEqual([result.error, result.returnValue], [undefined, args * 2]);
    }
    assert.notEqual((await runtime.start()).pid, pid);
    await runtime.shutdown();
    rmSync(cacheDir, { recursive: true });
  });
}
