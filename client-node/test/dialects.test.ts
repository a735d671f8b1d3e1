/** The two dialects, driven the way their callers drive them: the kernel with @msgpack/msgpack, the reactor with plain objects. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decode, encode } from '@msgpack/msgpack';
import { createRuntime, WasmRuntime, type KernelContext, type KernelResult, type KernelRuntime, type ReactorContext, type ReactorResult } from '@nexus/sidecar';

import { ALL, sidecarBinary, WATCHDOG } from './sidecar.js';

const binaryPath = sidecarBinary();
const cacheDir = undefined;

/** As the kernel's executor: config keys, encodeContext, decodeResult. */
const KERNEL_CONFIG = { maxInstances: 4, memoryLimitBytes: 32 * 1024 * 1024, timeoutMs: 5000, maxHostCalls: 1000, cacheDir, binaryPath };

function kernelContext(state: object, args: unknown = undefined): KernelContext {
  const encodeValue = (value: unknown): Buffer => Buffer.from(encode(value));
  return { panelId: 'p', handlerName: 'h', state: encodeValue(state), args: encodeValue(args), scope: encodeValue({}), capabilities: ALL };
}

function decodeKernel(native: KernelResult) {
  return {
    status: native.status,
    stateMutations: decode(native.stateMutations),
    events: decode(native.events) as { name: string; payload: unknown; timestamp: number }[],
    viewCommands: decode(native.viewCommands),
    returnValue: native.returnValue === undefined ? undefined : decode(native.returnValue),
    suspension: native.suspension && { ...native.suspension, args: decode(native.suspension.args) },
  };
}

async function withKernel(use: (runtime: KernelRuntime) => Promise<void>, config: object = {}): Promise<void> {
  const runtime = createRuntime({ ...KERNEL_CONFIG, ...config });
  try {
    await use(runtime);
  } finally {
    await runtime.shutdown();
  }
}

test('kernel: execute', WATCHDOG, () =>
  withKernel(async (runtime) => {
    const code = '$state.count++; $emit("toast", {a: 1}); $view.scrollTo("v", 5); return $state.count + $args.n';
    const native = await runtime.execute(code, kernelContext({ count: 1 }, { n: 10 }), 5000);
    const result = decodeKernel(native);
    assert.equal(result.status, 'success');
    assert.equal(result.returnValue, 12);
    assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'count', value: 2 }]);
    assert.equal(result.events[0]?.name, 'toast');
    assert.equal(typeof result.events[0]?.timestamp, 'number');
    assert.deepEqual(result.viewCommands, [{ viewId: 'v', command: 'scrollTo', params: { position: 5 } }]);
    assert.deepEqual(Object.keys(native.metrics).sort(), ['cacheHit', 'executionTimeUs', 'hostCalls', 'memoryPeakBytes', 'memoryUsedBytes']);
    assert.equal(typeof native.metrics.hostCalls, 'number');
    assert.ok(native.metrics.hostCalls >= 3);
  }));

test('kernel: precompile, executeCompiled, suspend and resume with Buffers', WATCHDOG, () =>
  withKernel(async (runtime) => {
    const handle = await runtime.precompile('$state.loading = true; const r = await $ext.http.get("u"); return r.body');
    assert.ok(Buffer.isBuffer(handle));
    for (let round = 0; round < 2; round++) {
      const first = decodeKernel(await runtime.executeCompiled(handle, kernelContext({}), 5000));
      assert.equal(first.status, 'suspended');
      assert.equal(first.suspension?.extensionName, 'http');
      assert.deepEqual(first.suspension?.args, ['u']);
      const value = Buffer.from(encode({ body: 'text' }));
      const last = decodeKernel(await runtime.resume(first.suspension?.suspensionId ?? '', { success: true, value }));
      assert.equal(last.returnValue, 'text');
      assert.deepEqual(last.stateMutations, []);
    }
    const first = await runtime.executeCompiled(handle, kernelContext({}), 5000);
    const failed = await runtime.resume(first.suspension?.suspensionId ?? '', { success: false, value: undefined, error: 'HTTP 500' } as never);
    assert.equal(failed.error?.code, 'EXECUTION_ERROR');
    assert.match(failed.error?.message ?? '', /HTTP 500/);
  }));

test('kernel: a success without a value resumes with nil', WATCHDOG, () =>
  withKernel(async (runtime) => {
    const first = await runtime.execute('return [await $ext.a.b()]', kernelContext({}), 5000);
    const last = decodeKernel(await runtime.resume(first.suspension?.suspensionId ?? '', { success: true, value: undefined } as never));
    assert.deepEqual(last.returnValue, [null]);
  }));

test('kernel: errors are flat', WATCHDOG, () =>
  withKernel(
    async (runtime) => {
      const result = await runtime.execute('let a;\na.b.c', kernelContext({}), 5000);
      assert.equal(result.status, 'error');
      assert.equal(result.error?.code, 'EXECUTION_ERROR');
      assert.equal(result.error?.line, 2);
      assert.equal(typeof result.error?.column, 'number');
      assert.match(result.error?.sourceSnippet ?? '', /a\.b\.c/);
      assert.equal('location' in (result.error ?? {}), false);
      await assert.rejects(runtime.precompile('const = 1'), { code: 'COMPILATION_ERROR' });
    },
    { debug: true },
  ));

test('kernel: getStats and getMetrics answer at once and follow soon', WATCHDOG, () =>
  withKernel(async (runtime) => {
    assert.equal(runtime.getStats().totalExecutions, 0);
    assert.equal(runtime.getMetrics(), '');
    for (let call = 0; call < 5; call++) await runtime.execute('return 1', kernelContext({}), 5000);
    while (runtime.getStats().totalExecutions < 5) await new Promise((resolve) => setTimeout(resolve, 10));
    const stats = runtime.getStats();
    for (const key of ['activeInstances', 'availableInstances', 'cacheHitRate', 'avgExecutionTimeUs', 'totalMemoryBytes'] as const) {
      assert.equal(typeof stats[key], 'number');
    }
    assert.match(runtime.getMetrics(), /nexus_handler_executions_total/);
  }));

test('kernel: a missing sidecar is a rejection of the first call, not a throw of createRuntime', WATCHDOG, async () => {
  const runtime = createRuntime({ ...KERNEL_CONFIG, binaryPath: '/nonexistent' });
  await assert.rejects(runtime.execute('return 1', kernelContext({}), 5000), { code: 'SIDECAR_NOT_FOUND' });
  await runtime.shutdown();
});

/** As the reactor's executor: its default configuration and its loop. */
const REACTOR_CONFIG = {
  maxInstances: 10,
  memoryLimitBytes: 32 * 1024 * 1024,
  stackSizeBytes: 1024 * 1024,
  enableSIMD: true,
  enableBulkMemory: true,
  enableAOT: false,
  binaryPath,
};

function reactorContext($ext: Record<string, object>, stateSnapshot: Record<string, unknown>): ReactorContext {
  const extensionRegistry: Record<string, string[]> = {};
  for (const [name, extension] of Object.entries($ext)) {
    extensionRegistry[name] = Object.keys(extension).filter((key) => typeof (extension as Record<string, unknown>)[key] === 'function');
  }
  return { panelId: 'p', handlerName: 'h', stateSnapshot, args: {}, scope: {}, capabilities: ALL, extensionRegistry };
}

async function reactorRun(runtime: WasmRuntime, code: string, $ext: Record<string, object>, $state: Record<string, unknown>) {
  const applied: string[] = [];
  const apply = ({ stateMutations }: ReactorResult): void => {
    for (const { operation, key, value } of stateMutations) {
      if (operation === 'set') $state[key] = value;
      else delete $state[key];
      applied.push(`${operation} ${key}`);
    }
  };
  let result = await runtime.executeHandler(code, reactorContext($ext, structuredClone($state)), 5000);
  while (result.status === 'suspended') {
    apply(result);
    const suspension = result.suspension!;
    let io: { success: true; value: unknown } | { success: false; error: string };
    try {
      const extension = $ext[suspension.extensionName] as Record<string, (...args: unknown[]) => unknown>;
      io = { success: true, value: await extension[suspension.method]!(...suspension.args) };
    } catch (error) {
      io = { success: false, error: (error as Error).message };
    }
    result = await runtime.resumeHandler(suspension.suspensionId, io);
  }
  apply(result);
  return { result, applied };
}

test('reactor: the executor\'s loop, with plain extensions, class instances and none', WATCHDOG, async () => {
  const runtime = new WasmRuntime(REACTOR_CONFIG);
  class Http {
    async get(path: string): Promise<unknown> {
      if (path === '/bad') throw new Error('404');
      return { path };
    }
  }
  const code = `
    $state.loading = true;
    const ok = await $ext.http.get('/ok');
    let failed = null;
    try { await $ext.http.get('/bad') } catch (e) { failed = e.message }
    delete $state.loading;
    return [ok.path, failed];`;
  for (const http of [new Http(), { get: (path: string) => new Http().get(path) }]) {
    const $state: Record<string, unknown> = { kept: 1 };
    const { result, applied } = await reactorRun(runtime, code, { http }, $state);
    assert.deepEqual(result.returnValue, ['/ok', '404']);
    assert.deepEqual(applied, ['set loading', 'delete loading']);
    assert.deepEqual($state, { kept: 1 });
  }
  const { result } = await reactorRun(runtime, 'return 5', {}, {});
  assert.equal(result.returnValue, 5);
  await runtime.shutdown();
});

test('reactor: view commands, metrics, errors and compiled handlers have its shapes', WATCHDOG, async () => {
  const runtime = new WasmRuntime({ ...REACTOR_CONFIG, debug: true });
  const context = reactorContext({}, {});
  const code = '$view.setFilter("a", 1); $view.scrollTo("b", 2); $view.focus("c"); $view.command("d", "flash", {times: 3})';
  const result = await runtime.executeHandler(code, context, 5000);
  assert.deepEqual(result.viewCommands, [
    { type: 'setFilter', componentId: 'a', args: { value: 1 } },
    { type: 'scrollTo', componentId: 'b', args: { position: 2 } },
    { type: 'focus', componentId: 'c', args: {} },
    { type: 'custom', componentId: 'd', args: { command: 'flash', times: 3 } },
  ]);
  assert.equal(typeof result.metrics.durationUs, 'number');
  assert.equal(typeof result.metrics.instructionCount, 'number');
  assert.equal(typeof result.metrics.hostCalls, 'object');

  const handle = await runtime.precompileHandler('return $scope.x');
  assert.ok(handle instanceof Uint8Array);
  const compiled = await runtime.executeCompiledHandler(handle, { ...context, scope: { x: 9 } }, 5000);
  assert.equal(compiled.returnValue, 9);

  const failed = await runtime.executeHandler('\nthrow new Error("x")', context, 5000);
  assert.equal(failed.error?.code, 'EXECUTION_ERROR');
  assert.equal(failed.error?.location?.line, 2);
  assert.equal(typeof failed.error?.snippet, 'string');
  assert.equal(typeof failed.error?.stack, 'string');
  while (runtime.getStats().totalExecutions < 3) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal((await runtime.getStats()).totalExecutions, 3);
  await runtime.shutdown();
});
