/** Processes: exits, crashes, shutdown, many at once, both module formats. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { NexusRuntime, type NexusError } from '@nexus/sidecar';

import { ALL, ended, failure, newFolder, newRuntime, sidecarBinary, WATCHDOG } from './sidecar.js';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));

/** Runs a script in a Node of its own; it must end by itself. */
async function script(format: 'module' | 'commonjs', code: string, cwd = packageRoot) {
  const child = spawn(process.execPath, [`--input-type=${format}`, '--unhandled-rejections=strict', '-e', code], {
    cwd,
    env: { ...process.env, NEXUS_SIDECAR_BIN: sidecarBinary() },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const watchdog = setTimeout(() => child.kill('SIGKILL'), 200_000);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [exitCode, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on('close', (code, killed) => resolve([code, killed]));
  });
  clearTimeout(watchdog);
  return { exitCode, signal, stdout: stdout.trim(), stderr };
}

const USE = `
  const runtime = new NexusRuntime();
  runtime.executeHandler('return $args * 2', { args: 21 }).then(async ({ returnValue }) => {
    const { pid } = await runtime.start();
    console.log(returnValue, pid);
  });`;

for (const [format, load] of [
  ['module', `import { NexusRuntime } from '@nexus/sidecar';`],
  ['commonjs', `const { NexusRuntime } = require('@nexus/sidecar');`],
] as const) {
  test(`a ${format} script that never shuts the runtime down exits by itself, and its sidecar with it`, WATCHDOG, async () => {
    const { exitCode, signal, stdout, stderr } = await script(format, load + USE);
    assert.deepEqual({ exitCode, signal, stderr }, { exitCode: 0, signal: null, stderr: '' });
    const [value, pid] = stdout.split(' ');
    assert.equal(value, '42');
    await ended(Number(pid));
  });
}

test('an awaited call holds Node alive until its answer', WATCHDOG, async () => {
  const code = `import { NexusRuntime } from '@nexus/sidecar';
    const { error } = await new NexusRuntime().executeHandler('for (;;);', {}, 300);
    console.log(error.code);`;
  const { exitCode, stdout } = await script('module', code);
  assert.deepEqual({ exitCode, stdout }, { exitCode: 0, stdout: 'TIMEOUT' });
});

test('installed under the names that the callers load, both dialects are there', WATCHDOG, async () => {
  const folder = newFolder('install');
  try {
    mkdirSync(join(folder, 'node_modules/@nexus'), { recursive: true });
    symlinkSync(packageRoot, join(folder, 'node_modules/@nexus/wasm-bridge'));
    symlinkSync(packageRoot, join(folder, 'node_modules/nexus-wasm-bridge'));
    const kernel = `const { createRuntime } = require('nexus-wasm-bridge'); console.log(typeof createRuntime({ maxInstances: 1 }).execute);`;
    const reactor = `const { WasmRuntime } = await import('@nexus/wasm-bridge'); console.log(typeof new WasmRuntime({}).executeHandler);`;
    assert.equal((await script('commonjs', kernel, folder)).stdout, 'function');
    assert.equal((await script('module', reactor, folder)).stdout, 'function');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('when the sidecar is killed every pending call rejects, and the next call works', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2 });
  const { pid } = await runtime.start();
  const handle = await runtime.precompileHandler('return 5');
  const pending = Array.from({ length: 20 }, () => failure(runtime.executeHandler('for (;;);')));
  pending.push(failure(runtime.run('for (;;);')));
  await runtime.ping();
  process.kill(pid, 'SIGKILL');
  const errors = await Promise.all(pending);
  for (const error of errors) {
    assert.equal(error.code, 'SIDECAR_GONE');
    assert.equal(error.retryable, true);
    assert.equal(error.context?.['signal'], 'SIGKILL');
  }
  assert.equal((await runtime.executeHandler('return 1')).returnValue, 1);
  assert.notEqual((await runtime.start()).pid, pid);
  // The handle of the one before: known again, or compiled again by the client.
  for (let round = 0; round < 2; round++) assert.equal((await runtime.executeCompiledHandler(handle)).returnValue, 5);
  await runtime.shutdown();
});

test('a handle whose sidecar has gone is compiled again, once for all who use it', WATCHDOG, async () => {
  const cacheDir = newFolder('cache');
  const runtime = newRuntime({ cacheDir });
  const handle = await runtime.precompileHandler('return $args');
  const { pid } = await runtime.start();
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  // Without its key the next sidecar cannot know the handle.
  rmSync(cacheDir, { recursive: true });
  const values = await Promise.all(
    Array.from({ length: 10 }, async (_, args) => {
      for (;;) {
        const result = await runtime.executeCompiledHandler(handle, { args }).catch((error: unknown) => ({ error, returnValue: undefined }));
        if ((result.error as { code?: string } | undefined)?.code !== 'SIDECAR_GONE') return result.returnValue;
      }
    }),
  );
  assert.deepEqual(values, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await runtime.shutdown();
  rmSync(cacheDir, { recursive: true, force: true });
});

test('a handler is compiled for the style asked for, and again for the same one', WATCHDOG, async () => {
  const cacheDir = newFolder('cache');
  const runtime = newRuntime({ cacheDir });
  const source = 'const p = $ext.a.b(); return [p instanceof Promise, await p]';
  const context = { capabilities: ['ext:a'] };
  const handles = {
    await: await runtime.precompileHandler(source, { suspendMode: 'await' }),
    stack: await runtime.precompileHandler(source, { suspendMode: 'stack' }),
  };
  const values = async (mode: 'await' | 'stack'): Promise<unknown> => {
    const first = await runtime.executeCompiledHandler(handles[mode], context);
    assert.equal(first.status, 'suspended', `${mode}: ${first.error?.message}`);
    return (await runtime.resumeHandler(first.suspension?.suspensionId ?? '', { success: true, value: 7 })).returnValue;
  };
  assert.deepEqual([await values('await'), await values('stack')], [[true, 7], [false, 7]]);
  const other = await runtime.executeCompiledHandler(handles.stack, { ...context, suspendMode: 'await' }).then(
    (result) => result.error,
    (error: unknown) => error as NexusError,
  );
  assert.equal(other?.code, 'INVALID_ARGUMENT');
  const unknown = { suspendMode: 'later' as 'stack' };
  await assert.rejects(runtime.precompileHandler(source, unknown), { code: 'INVALID_ARGUMENT' });
  const { pid } = await runtime.start();
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  // Without its key the next sidecar cannot know the handles.
  rmSync(cacheDir, { recursive: true });
  while ((await runtime.ping().catch(() => 'gone')) === 'gone');
  assert.deepEqual([await values('await'), await values('stack')], [[true, 7], [false, 7]]);
  await runtime.shutdown();
  rmSync(cacheDir, { recursive: true, force: true });
});

test('a crash of the sidecar is no unhandled rejection', WATCHDOG, async () => {
  const code = `import { NexusRuntime } from '@nexus/sidecar';
    const runtime = new NexusRuntime();
    const { pid } = await runtime.start();
    const call = runtime.executeHandler('for (;;);').catch((error) => error.code);
    process.kill(pid, 'SIGKILL');
    console.log(await call);`;
  const { exitCode, stdout, stderr } = await script('module', code);
  assert.deepEqual({ exitCode, stdout, stderr }, { exitCode: 0, stdout: 'SIDECAR_GONE', stderr: '' });
});

test('a sidecar whose client is killed ends by itself', WATCHDOG, async () => {
  const code = `import { NexusRuntime } from '@nexus/sidecar';
    const runtime = new NexusRuntime();
    const { pid } = await runtime.start();
    console.log(pid);
    runtime.executeHandler('for (;;);').catch(() => {});
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);`;
  const { signal, stdout } = await script('module', code);
  assert.equal(signal, 'SIGKILL');
  await ended(Number(stdout));
});

test('a thousand at once all come back, and more than the sidecar takes wait their turn', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2, maxQueueMs: 30_000, timeoutMs: 30_000 });
  for (const count of [1000, 3000]) {
    const results = await Promise.all(Array.from({ length: count }, (_, args) => runtime.executeHandler('return $args', { args })));
    assert.deepEqual(results.map(({ returnValue, error }) => error?.code ?? returnValue), Array.from({ length: count }, (_, args) => args));
  }
  await runtime.shutdown();
});

test('the value that is sent is the one at the time of the call, however long the call waits', WATCHDOG, async () => {
  const runtime = newRuntime({ maxInstances: 2, maxQueueMs: 30_000, timeoutMs: 30_000 });
  const args = { n: 0 };
  const calls = Array.from({ length: 1500 }, (_, index) => {
    args.n = index;
    return runtime.executeHandler('return $args.n', { args });
  });
  const values = (await Promise.all(calls)).map(({ returnValue }) => returnValue);
  assert.deepEqual(values, Array.from({ length: 1500 }, (_, index) => index));
  await runtime.shutdown();
});

test('large values travel both ways', WATCHDOG, async () => {
  const runtime = newRuntime();
  const text = 'x'.repeat(2_000_000);
  const result = await runtime.executeHandler('return $state.text + "y"', { state: { text, other: [1, 2] }, capabilities: ALL });
  assert.equal(result.error, undefined);
  assert.equal(result.returnValue, `${text}y`);
  const tooLarge = await failure(runtime.executeHandler('return 1', { args: Buffer.alloc(65 * 1024 * 1024) }));
  assert.equal(tooLarge.code, 'INVALID_ARGUMENT');
  await runtime.ping();
  await runtime.shutdown();
});

test('shutdown lets what runs finish and ends the sidecar; later calls reject', WATCHDOG, async () => {
  const runtime = newRuntime({ drainTimeoutMs: 50_000 });
  const { pid } = await runtime.start();
  const running = runtime.executeHandler('const end = Date.now(); let x = 0; for (let i = 0; i < 3e6; i++) x += i; return x');
  await runtime.shutdown();
  assert.equal((await running).status, 'success');
  await ended(pid);
  const late = await failure(runtime.executeHandler('return 1'));
  assert.equal(late.code, 'SIDECAR_GONE');
  assert.equal(late.retryable, false);
  await runtime.shutdown();
});

test('a shutdown that takes too long kills', WATCHDOG, async () => {
  const runtime = newRuntime({ shutdownTimeoutMs: 100, timeoutMs: 0 });
  const { pid } = await runtime.start();
  const running = failure(runtime.executeHandler('for (;;);'));
  await runtime.shutdown();
  await ended(pid);
  assert.ok(['SIDECAR_GONE', 'CANCELLED'].includes((await running).code));
});

test('clients share a sidecar that listens; one that leaves disturbs nobody; the next one on the path is found again', WATCHDOG, async () => {
  const folder = newFolder('service');
  const connect = join(folder, 'socket');
  const serve = async () => {
    const child = spawn(sidecarBinary(), ['serve', '--listen', connect], { stdio: 'ignore' });
    while (!existsSync(connect)) {
      assert.equal(child.exitCode, null, 'it cannot serve');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return child;
  };
  const one = new NexusRuntime({ connect });
  const two = new NexusRuntime({ connect });
  assert.match((await failure(one.ping())).message, /ENOENT/);

  const first = await serve();
  const values = await Promise.all([one, two].map((runtime, args) => runtime.executeHandler('return $args', { args })));
  assert.deepEqual(values.map(({ returnValue }) => returnValue), [0, 1]);
  const suspended = await one.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  const foreign = await two.resumeHandler(suspended.suspension?.suspensionId ?? '', { success: true });
  assert.equal(foreign.error?.code, 'SUSPENSION_ERROR');
  await one.shutdown();
  assert.equal((await two.executeHandler('return 2')).returnValue, 2);

  const pending = failure(two.executeHandler('for (;;);'));
  await two.ping();
  first.kill('SIGKILL');
  const gone = await pending;
  assert.equal(gone.code, 'SIDECAR_GONE');
  assert.match(gone.message, /socket/);
  await ended(first.pid ?? 0);
  rmSync(connect, { force: true });
  const second = await serve();
  assert.equal((await two.executeHandler('return 3')).returnValue, 3);
  await two.shutdown();
  second.kill('SIGTERM');
  await ended(second.pid ?? 0);
  rmSync(folder, { recursive: true });
});

test('the sidecar\'s last words are in the error when it refuses its configuration', WATCHDOG, async () => {
  const runtime = newRuntime({ minInstances: 5, maxInstances: 2 });
  const error = await failure(runtime.ping());
  assert.equal(error.code, 'SIDECAR_GONE');
  assert.equal(typeof error.context?.['exitCode'], 'number');
  assert.match(error.message, /instances/i);
});
