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

test('either door: a configuration that is wrong is what each call rejects with', WATCHDOG, async () => {
  for (const config of [{ maxHostCalls: NaN }, { timeoutMs: 'abc' }, { nothing: 1 }, { inferCapabilities: 'yes' }, null]) {
    const kernel = createRuntime(config as object);
    const reactor = new WasmRuntime(config as object);
    if (config === null) {
      await Promise.all([kernel.shutdown(), reactor.shutdown()]);
      continue;
    }
    const calls = [kernel.execute('return 1', kernelContext({})), kernel.precompile('return 1'), reactor.executeHandler('return 1', {}), reactor.precompileHandler('return 1')];
    for (const call of calls) await assert.rejects(call, { code: 'INVALID_ARGUMENT' });
    assert.deepEqual([kernel.getStats().totalExecutions, kernel.getMetrics(), reactor.getStats().totalExecutions], [0, '', 0]);
    await Promise.all([kernel.shutdown(), reactor.shutdown()]);
  }
});

test('either door: the sidecar starts before the first call, and is seen at work', WATCHDOG, async (t) => {
  const kernel = createRuntime({ ...KERNEL_CONFIG });
  const reactor = new WasmRuntime({ binaryPath });
  t.after(() => Promise.all([kernel.shutdown(), reactor.shutdown()]));
  const until = async (holds: () => boolean): Promise<void> => {
    while (!holds()) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  await until(() => /nexus_/.test(kernel.getMetrics()) && reactor.getStats().uptimeMs > 0);
  const busy = [kernel.execute('for (;;);', kernelContext({}), 3000), reactor.executeHandler('for (;;);', {}, 3000)];
  await until(() => kernel.getStats().activeInstances === 1 && reactor.getStats().activeInstances === 1);
  for (const { error } of await Promise.all(busy)) assert.equal(error?.code, 'TIMEOUT');
  await until(() => kernel.getStats().activeInstances === 0 && reactor.getStats().activeInstances === 0);
});

test('either door: a sidecar that is missing is a warning, and no unhandled rejection', WATCHDOG, async () => {
  const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
  const runtime = new WasmRuntime({ binaryPath: '/nonexistent' });
  const warning = await warned;
  assert.match(warning.message, /nexus-sidecar did not start: .*\/nonexistent/);
  assert.equal((warning as { code?: string }).code, 'SIDECAR_NOT_FOUND');
  await runtime.shutdown();
});

test('either door: an empty list means what the handler needs, where that is asked for', WATCHDOG, async (t) => {
  const infers = { binaryPath, inferCapabilities: true };
  const [kernel, reactor, exact] = [createRuntime(infers), new WasmRuntime(infers), createRuntime({ binaryPath })];
  t.after(() => Promise.all([kernel.shutdown(), reactor.shutdown(), exact.shutdown()]));
  const source = '$state.n = ($state.n ?? 0) + 1; return $state.n';
  const context = { ...kernelContext({ n: 1 }), capabilities: [] };
  assert.equal((await exact.execute(source, context)).error?.code, 'PERMISSION_DENIED');
  const handle = await kernel.precompile(source);
  for (const call of [kernel.execute(source, context), kernel.execute(source, context), kernel.executeCompiled(handle, context)]) {
    assert.equal(decodeKernel(await call).returnValue, 2);
  }
  assert.equal((await kernel.execute(source, { ...context, capabilities: ['state:read:n'] })).error?.code, 'PERMISSION_DENIED');
  assert.equal((await kernel.execute('let a = ;', context)).error?.code, 'COMPILATION_ERROR');
  const compiled = await reactor.precompileHandler(source);
  assert.equal((await reactor.executeHandler(source, { stateSnapshot: { n: 4 } })).returnValue, 5);
  assert.equal((await reactor.executeCompiledHandler(compiled, { stateSnapshot: { n: 4 }, capabilities: [] })).returnValue, 5);
});

test('either door: names of any length, values of their own kind, and a value that cannot be sent fails its call', WATCHDOG, async (t) => {
  const [kernel, reactor] = [createRuntime({ ...KERNEL_CONFIG }), new WasmRuntime({ binaryPath })];
  t.after(() => Promise.all([kernel.shutdown(), reactor.shutdown()]));
  const long = 'ü'.repeat(300);
  const plainBytes = { ...kernelContext({}), state: encode({ a: 1 }), args: encode([2]), panelId: long, handlerName: long };
  const native = await kernel.execute('return [$state.a, $args, await $ext.x.get()]', plainBytes as unknown as KernelContext);
  const resumed = await kernel.resume(native.suspension!.suspensionId, { success: true, value: encode({ b: 3 }) as Buffer });
  assert.deepEqual(decodeKernel(resumed).returnValue, [1, [2], { b: 3 }]);

  const context = { panelId: long, handlerName: long, capabilities: ALL, args: Buffer.from([5]) };
  const source = 'try { return [$args, await $ext.x.get()] } catch (e) { return [e.code, e.message] }';
  const first = await reactor.executeHandler(source, context);
  const bytes = await reactor.resumeHandler(first.suspension!.suspensionId, { success: true, value: Buffer.from([0x93, 1, 2, 3]) });
  assert.deepEqual(bytes.returnValue, [new Uint8Array([5]), new Uint8Array([0x93, 1, 2, 3])]);
  const cycle: unknown[] = [];
  cycle.push(cycle);
  const second = await reactor.executeHandler(source, context);
  const caught = await reactor.resumeHandler(second.suspension!.suspensionId, { success: true, value: cycle });
  assert.equal((caught.returnValue as string[])[0], 'SERIALIZATION_ERROR');
});

test("reactor: a handler's deadline is what the reactor says", WATCHDOG, async (t) => {
  const runtime = new WasmRuntime({ binaryPath });
  t.after(() => runtime.shutdown());
  // longer than the sidecar's own default, and none at all
  const wait = 'const end = $args; const from = performance_(); while (performance_() < end); function performance_() { return n++ } var n = 0';
  assert.equal((await runtime.executeHandler('for (;;);', {}, 5500)).error?.message.includes('5500'), true);
  assert.equal((await runtime.executeHandler(wait, { args: 1e5 }, 0)).status, 'success');
});
