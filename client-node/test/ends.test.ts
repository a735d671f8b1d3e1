/** How a process with a runtime ends: by itself, by process.exit, by Ctrl-C. Nothing is left, and nobody waits. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { ended, sidecarBinary, WATCHDOG } from './sidecar.js';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));

interface End {
  exitCode: number | null;
  signal: string | null;
  lines: string[];
  stderr: string;
}

/** A Node of its own, in its own process group as a shell would have it; `interrupt`: Ctrl-C as soon as it has said a line. */
async function script(code: string, interrupt = false): Promise<End> {
  const child = spawn(process.execPath, ['--input-type=module', '--unhandled-rejections=strict', '-e', code], {
    cwd: packageRoot,
    env: { ...process.env, NEXUS_SIDECAR_BIN: sidecarBinary() },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let stdout = '';
  let stderr = '';
  let interrupted = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (!interrupt || interrupted || !stdout.includes('\n')) return;
    interrupted = true;
    process.kill(-(child.pid ?? 0), 'SIGINT'); // a terminal sends it to the whole group, the sidecar included
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [exitCode, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on('close', (status, killed) => resolve([status, killed]));
  });
  return { exitCode, signal, lines: stdout.trim().split('\n'), stderr };
}

const START = `
  import { NexusRuntime } from '@nexus/sidecar';
  const runtime = new NexusRuntime();
  const { pid } = await runtime.start();
  console.log(pid);`;
const SLEEP = '{ a: { b: () => new Promise((resolve) => setTimeout(resolve, 60_000).unref()) } }';

test('process.exit in the middle of runs, suspended ones and a restart leaves no sidecar', WATCHDOG, async () => {
  const { exitCode, lines, stderr } = await script(`${START}
    runtime.run('for (;;);').catch(() => undefined);
    const run = () => runtime.run('return await $ext.a.b()', { capabilities: ['ext:*'], extensions: ${SLEEP}, onSegment: () => process.exit(7) });
    for (let i = 0; i < 50; i++) run().catch(() => undefined);`);
  assert.deepEqual([exitCode, stderr], [7, '']);
  await ended(Number(lines[0]));
});

test('Ctrl-C without a handler ends both', WATCHDOG, async () => {
  const { signal, lines, stderr } = await script(`${START}
    await runtime.run('for (;;);', { timeoutMs: 0 });`, true);
  assert.deepEqual([signal, stderr], ['SIGINT', '']);
  await ended(Number(lines[0]));
});

test('Ctrl-C with a handler that shuts down: what runs is answered or rejected, and the process ends by itself', WATCHDOG, async () => {
  const { exitCode, lines, stderr } = await script(`
    process.once('SIGINT', async () => {
      await runtime.shutdown();
      console.log('closed');
    });
    ${START}
    console.log(await runtime.run('for (;;);', { timeoutMs: 300 }).then(() => 'value', ({ code }) => code));`, true);
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.deepEqual(lines.slice(1).sort().at(-1), 'closed');
  assert.ok(['TIMEOUT', 'CANCELLED', 'SIDECAR_GONE'].includes(lines.slice(1).sort()[0] ?? ''), lines.join());
  await ended(Number(lines[0]));
});
