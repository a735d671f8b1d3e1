/** The package as it is installed: the packed tarball by require and by import, the README's examples, worker threads. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

import { ended, newFolder, sidecarBinary, WATCHDOG } from './sidecar.js';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));
const folder = newFolder('package');
after(() => rmSync(folder, { recursive: true }));
const env = { ...process.env, NEXUS_SIDECAR_BIN: sidecarBinary() };

function runNode(cwd: string, file: string): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--unhandled-rejections=strict', file], {
    cwd,
    env,
    encoding: 'utf8',
    timeout: 200_000,
  });
  assert.equal(status, 0, `${file}: ${stderr}`);
  return stdout.trim();
}

test('packed and installed, it is there by require and by import, types included, and the errors of both are one kind', { timeout: 600_000 }, () => {
  const npm = { cwd: folder, env: { ...env, npm_config_cache: join(folder, '.npm') }, encoding: 'utf8' as const };
  const packed = execFileSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], { ...npm, cwd: packageRoot });
  writeFileSync(join(folder, 'package.json'), '{"private":true}');
  const tarball = join(folder, packed.trim().split('\n').at(-1) ?? '');
  execFileSync('npm', ['install', '--offline', '--no-audit', '--no-fund', '--silent', tarball], npm);
  const installed = join(folder, 'node_modules/@nexus/sidecar');
  assert.deepEqual(readdirSync(installed).sort(), ['CHANGELOG.md', 'README.md', 'dist', 'handler.d.ts', 'package.json']);
  const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as { dependencies?: object };
  assert.equal(dependencies, undefined);
  const use = `(async () => {
    const runtime = new NexusRuntime();
    console.log((await runtime.run('return $args + 1', { args: 41 })).value);
    await runtime.shutdown();
  })();`;
  writeFileSync(join(folder, 'a.cjs'), `const { NexusRuntime } = require('@nexus/sidecar');\n${use}`);
  writeFileSync(join(folder, 'b.mjs'), `import { NexusRuntime } from '@nexus/sidecar';\n${use}`);
  writeFileSync(
    join(folder, 'c.mjs'),
    `import { createRequire } from 'node:module';
     import * as esm from '@nexus/sidecar';
     const cjs = createRequire(import.meta.url)('@nexus/sidecar');
     const thrown = (module) => { try { new module.NexusRuntime({ nope: 1 }); } catch (error) { return error; } };
     console.log(esm.NexusError !== cjs.NexusError, thrown(cjs) instanceof esm.NexusError, thrown(esm) instanceof cjs.NexusError,
       new Error('x') instanceof esm.NexusError, Object.keys(esm).filter((name) => name !== 'default').every((name) => name in cjs));`,
  );
  assert.equal(runNode(folder, 'a.cjs'), '42');
  assert.equal(runNode(folder, 'b.mjs'), '42');
  assert.equal(runNode(folder, 'c.mjs'), 'true true true false true');
  assert.throws(() => execFileSync(process.execPath, ['-e', `require('@nexus/sidecar/dist/cjs/core.js')`], { ...npm, stdio: 'pipe' }));
  for (const [file, module, resolution] of [['t.cts', 'Node16', 'Node16'], ['t.mts', 'Node16', 'Node16'], ['t.ts', 'ES2022', 'Bundler'], ['u.ts', 'CommonJS', 'Node10']] as const) {
    writeFileSync(join(folder, file), `import { NexusRuntime, type RunResult } from '@nexus/sidecar';\nimport { createRuntime } from '@nexus/sidecar/kernel';\nimport { WasmRuntime } from '@nexus/sidecar/reactor';\nexport const doors = [createRuntime, WasmRuntime];\nexport const f = (r: NexusRuntime): Promise<RunResult> => r.run('');\n`);
    const tsc = join(packageRoot, 'node_modules/typescript/bin/tsc');
    const types = ['--types', 'node', '--typeRoots', join(packageRoot, 'node_modules/@types')];
    const { status, stdout } = spawnSync(process.execPath, [tsc, '--strict', '--noEmit', '--target', 'es2022', '--lib', 'es2023,esnext.disposable', '--module', module, '--moduleResolution', resolution, ...types, file], { cwd: folder, encoding: 'utf8' });
    assert.equal(status, 0, stdout);
  }
});

test('installed with its platform package, the program is found by every kind of module, in bundles and by its own command', { timeout: 600_000 }, async () => {
  const project = join(folder, 'platform');
  const platform = join(project, `node_modules/@nexus/sidecar-${process.platform}-${process.arch}`);
  mkdirSync(join(platform, 'bin'), { recursive: true });
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  writeFileSync(join(platform, 'package.json'), JSON.stringify({ version }));
  writeFileSync(join(platform, 'bin/nexus-sidecar'), `#!/bin/sh\nexec ${sidecarBinary()} "$@"\n`, { mode: 0o755 });
  // The package itself, as npm puts it there; beside the other, so that only its own place or the bundle's leads there.
  const client = join(project, 'node_modules/@nexus/sidecar');
  mkdirSync(client, { recursive: true });
  cpSync(join(packageRoot, 'dist'), join(client, 'dist'), { recursive: true });
  cpSync(join(packageRoot, 'package.json'), join(client, 'package.json'));
  const use = `new NexusRuntime().run('return $args + 1', { args: 41 }).then(({ value }) => console.log(value));`;
  const { NEXUS_SIDECAR_BIN: _, ...rest } = process.env;
  const bare = { ...rest, PATH: dirname(process.execPath) };
  const elsewhere = newFolder('elsewhere');
  const run = (...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: elsewhere, env: bare, encoding: 'utf8', timeout: 200_000 });
    assert.equal(status, 0, `${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  };
  const cjs = join(project, 'a.cjs');
  const esm = join(project, 'b.mjs');
  writeFileSync(cjs, `const { NexusRuntime } = require('@nexus/sidecar'); ${use}`);
  writeFileSync(esm, `import { NexusRuntime } from '@nexus/sidecar'; ${use}`);
  writeFileSync(join(project, 'w.cjs'), `new (require('node:worker_threads').Worker)(require.resolve('./a.cjs'))`);
  assert.equal(run(cjs), '42');
  assert.equal(run(esm), '42');
  assert.equal(run(join(project, 'w.cjs')), '42');
  for (const [source, format, out] of [[esm, 'esm', 'out.mjs'], [esm, 'cjs', 'out.cjs'], [cjs, 'cjs', 'out2.cjs']] as const) {
    const bundle = join(project, out);
    const esbuild = join(packageRoot, 'node_modules/esbuild/bin/esbuild');
    execFileSync(esbuild, ['--bundle', '--platform=node', `--format=${format}`, '--log-level=error', `--outfile=${bundle}`, source], { cwd: project });
    assert.equal(run(bundle), '42', out);
  }
  // webpack evaluates what it knows of Node's own modules, and has its own answers for it.
  for (const source of [esm, cjs]) {
    const filename = `packed-${basename(source)}.cjs`;
    const options = { mode: 'production', target: 'node', context: project, entry: source, output: { path: project, filename } };
    const pack = `require('webpack')(${JSON.stringify(options)}, (error, stats) => { if (error ?? stats.hasErrors()) throw error ?? new Error(stats.toString()); });`;
    execFileSync(process.execPath, ['--eval', pack], { cwd: packageRoot });
    assert.equal(run(join(project, filename)), '42', filename);
  }
  const { bin } = JSON.parse(readFileSync(join(client, 'package.json'), 'utf8')) as { bin: Record<string, string> };
  const command = join(client, bin['nexus-sidecar'] ?? '');
  assert.match(run(command, '--version'), /^nexus-sidecar \d/);
  writeFileSync(join(elsewhere, 'h.js'), 'return 6 * 7');
  assert.match(run(command, 'run', 'h.js'), /^42/);
  const wrong = spawnSync(process.execPath, [command, 'no-such-command'], { cwd: elsewhere, env: bare, encoding: 'utf8' });
  assert.equal(wrong.status, 2, wrong.stderr);
  // Ended in a way that nobody can pass on, the program ends with it.
  const folderOfSocket = newFolder('killed');
  const socket = join(folderOfSocket, 's');
  const killed = spawn(process.execPath, [command, 'serve', '--listen', socket], { cwd: elsewhere, env: bare, stdio: 'ignore' });
  assert.ok(killed.pid !== undefined);
  while (!existsSync(socket)) {
    assert.equal(killed.exitCode ?? killed.signalCode, null, 'it serves');
    await pause(20);
  }
  const children = descendants(killed.pid);
  assert.equal(children.length, 1);
  killed.kill('SIGKILL');
  await ended(children[0] ?? 0);
  rmSync(folderOfSocket, { recursive: true });
  // npx, which starts it within a shell or not, passes nothing on either.
  mkdirSync(join(project, 'node_modules/.bin'));
  chmodSync(command, 0o755);
  symlinkSync(command, join(project, 'node_modules/.bin/nexus-sidecar'));
  const ofNpx = join(elsewhere, 's');
  const npx = spawn('npx', ['--offline', 'nexus-sidecar', 'serve', '--listen', ofNpx], { cwd: project, env: bare, stdio: 'ignore' });
  assert.ok(npx.pid !== undefined);
  while (!existsSync(ofNpx)) {
    assert.equal(npx.exitCode ?? npx.signalCode, null, 'npx serves');
    await pause(20);
  }
  const below = descendants(npx.pid);
  assert.ok(below.length >= 2, `npx started ${below.length}`);
  npx.kill('SIGKILL');
  for (const pid of below) await ended(pid);
  // Ended by a signal, it ends by that signal.
  writeFileSync(join(platform, 'bin/nexus-sidecar'), '#!/bin/sh\nkill -TERM $$\n', { mode: 0o755 });
  assert.equal(spawnSync(process.execPath, [command], { env: bare }).signal, 'SIGTERM');
  rmSync(platform, { recursive: true });
  const missing = spawnSync(process.execPath, [command, '--version'], { cwd: elsewhere, env: bare, encoding: 'utf8' });
  assert.equal(missing.status, 127);
  assert.match(missing.stderr, /What to do: /);
  rmSync(elsewhere, { recursive: true });
});

/** Every process below one: its children and theirs. */
function descendants(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter((text) => text !== '').map(Number);
  return children.flatMap((child) => [child, ...descendants(child)]);
}

test('the examples of the README run', WATCHDOG, () => {
  const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8');
  const examples = [...readme.matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code ?? '');
  assert.ok(examples.length >= 3);
  for (const [index, code] of examples.entries()) {
    const file = join(packageRoot, 'test-dist', `readme-${index}.mjs`);
    writeFileSync(file, code);
    runNode(packageRoot, file);
  }
});

test('the example programs print what they say, and are short', WATCHDOG, () => {
  const folder = join(packageRoot, 'examples');
  const programs = readdirSync(folder).filter((name) => name.endsWith('.mjs') && name !== 'demo.mjs');
  assert.ok(programs.length >= 9);
  const readme = readFileSync(join(packageRoot, 'README.md'), 'utf8');
  for (const name of programs) {
    const lines = readFileSync(join(folder, name), 'utf8').trimEnd().split('\n');
    const said = lines.filter((line) => line.startsWith('// prints ')).map((line) => line.slice('// prints '.length).trimEnd());
    assert.ok(said.length > 0 && lines.length - said.length <= 22, `${name} is long`);
    assert.ok(readme.includes(`examples/${name}`), `the README does not name ${name}`);
    const printed = runNode(packageRoot, join(folder, name)).split('\n').map((line) => line.trimEnd());
    assert.deepEqual(printed, said, name);
  }
});

test('a process with a suspended execution and an idle runtime ends by itself', WATCHDOG, () => {
  const file = join(packageRoot, 'test-dist', 'suspended-exit.mjs');
  writeFileSync(
    file,
    `import { NexusRuntime } from '@nexus/sidecar';
     const runtime = new NexusRuntime();
     const { status } = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ['ext:*'] });
     console.log(status);`,
  );
  assert.equal(runNode(packageRoot, file), 'suspended');
});

/** Node does not reap the children of a worker that was terminated: a dead one stays in the table until this process ends. */
async function dead(pid: number): Promise<void> {
  while (!/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))) await new Promise((resolve) => setTimeout(resolve, 10));
}

const WORKER = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { NexusRuntime } = require(workerData.entry);
  (async () => {
    const runtime = new NexusRuntime();
    const { pid } = await runtime.start();
    const { value } = await runtime.run('return $args * 2', { args: workerData.n });
    parentPort.postMessage({ pid, value });
    if (workerData.busy) await runtime.run('for (;;);', { timeoutMs: 0 }).catch(() => undefined);
    await runtime.shutdown();
  })();`;

test('runtimes live in several worker threads; one that is terminated while busy takes its sidecar along', WATCHDOG, async () => {
  const entry = join(packageRoot, 'dist/cjs/index.js');
  const start = (n: number, busy: boolean): { worker: Worker; said: Promise<{ pid: number; value: number }>; exit: Promise<unknown> } => {
    const worker = new Worker(WORKER, { eval: true, workerData: { entry, n, busy }, env });
    const said = new Promise<{ pid: number; value: number }>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    return { worker, said, exit: new Promise((resolve) => worker.once('exit', resolve)) };
  };
  const workers = [start(1, true), start(2, false), start(3, true)];
  const said = await Promise.all(workers.map((worker) => worker.said));
  assert.deepEqual(said.map(({ value }) => value), [2, 4, 6]);
  await workers[0]?.worker.terminate();
  await dead(said[0]?.pid ?? 0);
  await workers[1]?.exit;
  await ended(said[1]?.pid ?? 0);
  // The third has gone on all the while.
  process.kill(said[2]?.pid ?? 0, 0);
  await workers[2]?.worker.terminate();
  await dead(said[2]?.pid ?? 0);
});
