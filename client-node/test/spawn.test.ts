/** Starting, failing to start, and peers that break the protocol. None of the programs here is a sidecar. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { NexusError, NexusRuntime } from '@nexus/sidecar';
import { beginFrame, endFrame } from '../dist/esm/frames.js';
import { encodeFields, type Fields } from '../dist/esm/fields.js';
import { findBinary } from '../dist/esm/program.js';
import { childEnv } from '../dist/esm/spawn.js';
import { CLIENT_VERSION } from '../dist/esm/version.js';
import { Writer } from '../dist/esm/writer.js';

import { newFolder } from './sidecar.js';

const folder = newFolder('spawn');
after(() => rmSync(folder, { recursive: true }));

function program(name: string, script: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

async function failure(promise: Promise<unknown>): Promise<NexusError> {
  const error: unknown = await promise.then(
    () => assert.fail('it did not reject'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof NexusError, String(error));
  return error;
}

test('the binary is looked for in the option, the environment and PATH, in this order', () => {
  const first = program('first', '');
  mkdirSync(join(folder, 'bin'));
  const onPath = program('bin/nexus-sidecar', '');
  const env = { PATH: `relative:/nonexistent:${join(folder, 'bin')}`, NEXUS_SIDECAR_BIN: first };
  assert.equal(findBinary({ binaryPath: onPath, env }), onPath);
  assert.equal(findBinary({ env }), first);
  assert.equal(findBinary({ env: { PATH: env.PATH } }), onPath);
});

test('a binary that is nowhere is an error that says where it was looked for', async () => {
  assert.throws(
    () => findBinary({ env: { PATH: '/nonexistent:/also' } }),
    (error) => {
      assert.ok(error instanceof NexusError && error.code === 'SIDECAR_NOT_FOUND' && !error.retryable);
      for (const place of ['binaryPath', 'NEXUS_SIDECAR_BIN', `@nexus/sidecar-${process.platform}-${process.arch}`, '/nonexistent:/also']) {
        assert.ok(error.message.includes(place), place);
      }
      return true;
    },
  );
  // Named, so nothing else is tried; also for a folder and for a file that is not executable.
  const plain = join(folder, 'plain');
  writeFileSync(plain, '');
  for (const binaryPath of ['/nonexistent', folder, plain]) {
    const error = await failure(new NexusRuntime({ binaryPath }).ping());
    assert.ok(error.message.includes(binaryPath) && error.code === 'SIDECAR_NOT_FOUND');
  }
});

/** A package with a program, where the file `from` finds it. */
function installed(name: string, platform: string, version = CLIENT_VERSION): { from: string[]; program: string } {
  const project = join(folder, name);
  const home = join(project, `node_modules/@nexus/sidecar-${platform}`);
  mkdirSync(join(home, 'bin'), { recursive: true });
  writeFileSync(join(home, 'package.json'), JSON.stringify({ version }));
  return { from: [join(project, 'main.js')], program: program(`${name}/node_modules/@nexus/sidecar-${platform}/bin/nexus-sidecar`, '') };
}

/** What a search says that finds nothing. */
function searched(platform: string, from: (string | undefined)[]): string {
  let message = '';
  assert.throws(() => findBinary({ env: {}, platform, from }), (error) => {
    assert.ok(error instanceof NexusError && error.code === 'SIDECAR_NOT_FOUND');
    message = error.message;
    return true;
  });
  return message;
}

test('the package for this platform is found from the files that ask, before PATH', () => {
  const { from, program: packaged } = installed('here', 'linux-x64');
  assert.equal(findBinary({ env: { PATH: join(folder, 'bin') }, platform: 'linux-x64', from }), packaged);
  assert.equal(findBinary({ env: {}, platform: 'linux-x64', from: [undefined, '/nonexistent/x.js', ...from] }), packaged);
});

test('a bundle finds it beside the client, where packages see only what they ask for themselves', () => {
  const { program: packaged } = installed('strict/store', 'linux-x64');
  const client = join(folder, 'strict/store/node_modules/@nexus/sidecar');
  mkdirSync(client);
  writeFileSync(join(client, 'package.json'), '{}');
  const links = join(folder, 'strict/project/node_modules/@nexus');
  mkdirSync(links, { recursive: true });
  symlinkSync(client, join(links, 'sidecar'));
  assert.equal(findBinary({ env: {}, platform: 'linux-x64', from: [join(folder, 'strict/project/out/bundle.js')] }), packaged);
  // Where Node keeps links, what it runs is known by a path on which there is nothing else.
  const ask = `
    const { findBinary } = await import(${JSON.stringify(import.meta.resolve('../dist/esm/program.js'))});
    console.log(findBinary({ env: {}, platform: 'linux-x64', from: [${JSON.stringify(join(links, 'sidecar/dist/esm/here.js'))}] }));`;
  const kept = ['--preserve-symlinks', '--preserve-symlinks-main', '--input-type=module', '--eval', ask];
  assert.equal(execFileSync(process.execPath, kept, { encoding: 'utf8' }).trim(), packaged);
});

test('the command of the package on PATH is not the program: the program is looked for from there', () => {
  const lacks = join(folder, 'lacks/node_modules');
  const command = (modules: string): string => {
    mkdirSync(join(folder, modules, '@nexus/sidecar/dist/esm'), { recursive: true });
    const file = program(`${modules}/@nexus/sidecar/dist/esm/bin.js`, '');
    writeFileSync(join(folder, modules, '@nexus/sidecar/package.json'), JSON.stringify({ name: '@nexus/sidecar' }));
    mkdirSync(join(folder, modules, '.bin'));
    symlinkSync(file, join(folder, modules, '.bin/nexus-sidecar'));
    return join(folder, modules, '.bin');
  };
  const PATH = command('lacks/node_modules');
  const env = { PATH };
  assert.throws(() => findBinary({ env, platform: 'linux-x64', from: ['/nonexistent/x.js'] }), (error) => {
    assert.match((error as Error).message, new RegExp(`${lacks}/.bin/nexus-sidecar: is the command of @nexus/sidecar, and looks for the program as well
[^]*What to do: npm i`));
    return true;
  });
  const { program: packaged } = installed('has', 'linux-x64');
  const both = `${PATH}:${command('has/node_modules')}`;
  assert.equal(findBinary({ env: { PATH: both }, platform: 'linux-x64', from: ['/nonexistent/x.js'] }), packaged);
});

test('the command that is led back to itself, by whatever stands on PATH or is named, starts nothing and says what to do', () => {
  const project = join(folder, 'circle');
  const client = join(project, 'node_modules/@nexus/sidecar');
  mkdirSync(join(project, 'bin'), { recursive: true });
  mkdirSync(dirname(client), { recursive: true });
  cpSync(fileURLToPath(new URL('../dist', import.meta.url)), join(client, 'dist'), { recursive: true });
  cpSync(fileURLToPath(new URL('../package.json', import.meta.url)), join(client, 'package.json'));
  const command = join(client, 'dist/esm/bin.js');
  chmodSync(command, 0o755);
  const count = join(project, 'count');
  // As pnpm and Yarn lead to a command: by a script, and by one that starts another process.
  for (const start of ['exec ', '']) {
    // Were it to go round, it would end after three times rather than with the machine.
    const shim = program('circle/bin/nexus-sidecar', `echo >> ${count}\n[ "$(wc -l < ${count})" -lt 3 ] || exit 9\n${start}${process.execPath} ${command} "$@"\n`);
    for (const way of [{ PATH: `${dirname(shim)}:/bin:/usr/bin` }, { PATH: '/bin:/usr/bin', NEXUS_SIDECAR_BIN: shim }]) {
      writeFileSync(count, '');
      const { status, stderr } = spawnSync(process.execPath, [command, '--version'], { cwd: project, env: way, encoding: 'utf8' });
      assert.equal(readFileSync(count, 'utf8'), '\n', 'it went round once');
      assert.equal(status, 127, stderr);
      assert.match(stderr, /this was started as the program that was found[^]*What to do: npm i/);
    }
  }
  const { program: packaged } = installed('circle', `${process.platform}-${process.arch}`);
  writeFileSync(packaged, '#!/bin/sh\necho the program\n', { mode: 0o755 });
  const shim = join(project, 'bin/nexus-sidecar');
  const { stdout } = spawnSync(process.execPath, [command], { cwd: project, env: { PATH: '/bin', NEXUS_SIDECAR_BIN: shim }, encoding: 'utf8' });
  assert.equal(stdout, 'the program\n');
});

test('a package of another version than the client is told of and not used, and one that agrees is, wherever it stands', () => {
  const other = installed('other', 'linux-x64', '0.0.0');
  const agree = `is of version 0\\.0\\.0, and this client of ${CLIENT_VERSION}; the two have to agree\n[^]*What to do: npm i @nexus/sidecar-linux-x64@${CLIENT_VERSION}`;
  assert.match(searched('linux-x64', other.from), new RegExp(agree));
  const same = installed('same', 'linux-x64');
  assert.equal(findBinary({ env: {}, platform: 'linux-x64', from: [...other.from, ...same.from] }), same.program);
  writeFileSync(join(folder, 'other/node_modules/@nexus/sidecar-linux-x64/package.json'), 'not JSON');
  assert.match(searched('linux-x64', other.from), /is of version unknown \(its package.json cannot be read\)/);
});

test('a program that is empty, cut off or something else is told as such rather than run: of nothing a shell makes a success', () => {
  const spoiled = join(folder, 'spoiled');
  const says = (bytes: string | Buffer, what: RegExp): void => {
    writeFileSync(spoiled, bytes, { mode: 0o755 });
    for (const lookup of [{ binaryPath: spoiled, env: {} }, { env: { NEXUS_SIDECAR_BIN: spoiled } }]) assert.throws(() => findBinary(lookup), what);
  };
  says('', /it is empty; install it anew/);
  says('echo 42\n', /it is no program: it begins neither as machine code nor as a script/);
  const whole = readFileSync(process.execPath);
  for (const len of [20, 63, 64, whole.length - 1]) says(whole.subarray(0, len), /it is damaged: it is cut off; install it anew/);
  writeFileSync(spoiled, whole);
  assert.equal(findBinary({ binaryPath: spoiled, env: {} }), spoiled);
});

test('a search that finds nothing says what to do on this platform', () => {
  const nowhere = ['/nonexistent/x.js'];
  assert.match(searched('linux-x64', nowhere), /package @nexus\/sidecar-linux-x64: not installed\n[^]*What to do: npm i @nexus\/sidecar-linux-x64@\d+\.\d+\.\d+ /);
  for (const platform of ['linux-arm64', 'darwin-arm64']) {
    assert.match(searched(platform, nowhere), new RegExp(`What to do: @nexus/sidecar-${platform} is not built yet; run it on linux-x64 and connect`));
  }
  assert.match(searched('win32-x64', nowhere), /there is no nexus-sidecar for win32-x64/);
  assert.match(searched('linux-x64', [undefined]), /could not look \(this file is bundled/);
  const { from } = installed('copied', 'linux-x64');
  assert.match(searched('darwin-arm64', from), /not installed; @nexus\/sidecar-linux-x64 is, but this is darwin-arm64: were the packages installed on another machine\?/);
});

test('a program for another processor, without x, or for nobody here is told as such', () => {
  const foreign = join(folder, 'foreign');
  const head = Buffer.alloc(64);
  head.write('\x7fELF\x02\x01', 'latin1');
  for (const [machine, arch] of [[183, 'arm64'], [243, 'riscv64'], [999, 'machine 999']] as const) {
    head.writeUInt16LE(machine, 18);
    writeFileSync(foreign, head, { mode: 0o755 });
    assert.throws(() => findBinary({ binaryPath: foreign, env: {} }), new RegExp(`names ${foreign}, .*: it is a program for ${arch}, and this is ${process.arch}`));
  }
  chmodSync(foreign, 0o644);
  assert.throws(() => findBinary({ binaryPath: foreign, env: {} }), /its mode has no x/);
  const { from, program: packaged } = installed('damaged', 'linux-x64');
  rmSync(packaged);
  assert.match(searched('linux-x64', from), /package @nexus\/sidecar-linux-x64: \S+ does not exist/);
});

test('a program that ends at once rejects what waits, with exit code and its last words', async () => {
  const lines: string[] = [];
  const script = 'i=0; while [ $i -lt 30 ]; do echo "line $i" >&2; i=$((i+1)); done; printf "no newline" >&2; exit 3';
  const runtime = new NexusRuntime({ binaryPath: program('talks', script), onLog: (line) => lines.push(line) });
  const [first, second] = await Promise.all([failure(runtime.ping()), failure(runtime.executeHandler('return 1'))]);
  assert.equal(first, second);
  assert.equal(first.code, 'SIDECAR_GONE');
  assert.equal(first.retryable, true);
  assert.equal(first.context?.['exitCode'], 3);
  assert.match(first.message, /exited with code 3/);
  assert.match(first.message, /line 29\n {2}no newline/);
  assert.doesNotMatch(first.message, /line 10\n/);
  assert.equal(lines.length, 31);
});

test('a program that is killed rejects what waits, with the signal; a logger that throws is no matter', async () => {
  const onLog = (): never => {
    throw new Error('logger');
  };
  const runtime = new NexusRuntime({ binaryPath: program('dies', 'echo dying >&2; kill -9 $$'), onLog });
  const error = await failure(runtime.ping());
  assert.equal(error.context?.['signal'], 'SIGKILL');
});

test('a program that never says hello is killed when the start limit has passed', async () => {
  const pidFile = join(folder, 'pid');
  const binaryPath = program('silent', `echo $$ > ${pidFile}; exec sleep 600`);
  const runtime = new NexusRuntime({ binaryPath, startTimeoutMs: 3000 });
  const error = await failure(runtime.ping());
  assert.equal(error.code, 'SIDECAR_GONE');
  assert.match(error.message, /3000 ms/);
  await runtime.shutdown();
  const pid = Number(readFileSync(pidFile, 'utf8'));
  await ended(pid);
});

async function ended(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test('starts after early deaths wait longer and longer', async () => {
  const runtime = new NexusRuntime({ binaryPath: program('crashes', 'exit 1') });
  const startedAt = performance.now();
  for (let call = 0; call < 4; call++) assert.equal((await failure(runtime.ping())).code, 'SIDECAR_GONE');
  const waits = (50 + 100 + 200) / 2; // a random half is taken off each
  assert.ok(performance.now() - startedAt >= waits);
});

test('a shutdown while the next start waits settles everything', async () => {
  const runtime = new NexusRuntime({ binaryPath: program('crashes2', 'exit 1'), shutdownTimeoutMs: 50 });
  for (let call = 0; call < 3; call++) await failure(runtime.ping());
  const pending = failure(runtime.ping());
  await runtime.shutdown();
  assert.equal((await pending).code, 'SIDECAR_GONE');
  const late = await failure(runtime.ping());
  assert.match(late.message, /shut down/);
  assert.equal(late.retryable, false);
});

test('a runtime that was never used shuts down at once, as often as asked', async () => {
  const runtime = new NexusRuntime({ binaryPath: '/nonexistent' });
  await Promise.all([runtime.shutdown(), runtime.shutdown(), runtime[Symbol.asyncDispose]()]);
});

test('the sidecar gets no variables that may hold secrets', () => {
  const env = { PATH: '/bin', HOME: '/root', NEXUS_DEBUG: 'true', LC_ALL: 'C', AWS_SECRET_ACCESS_KEY: 's', JWT_SECRET: 's', NODE_OPTIONS: 'x' };
  assert.deepEqual(childEnv(env, { EXTRA: '1' }), { PATH: '/bin', HOME: '/root', NEXUS_DEBUG: 'true', LC_ALL: 'C', EXTRA: '1' });
});

/** What a peer that is no sidecar sends to whoever connects. */
async function withPeer(bytes: Buffer, use: (runtime: NexusRuntime) => Promise<void>): Promise<void> {
  const path = join(folder, `peer-${Math.random().toString(36).slice(2)}`);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.write(bytes);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await use(new NexusRuntime({ connect: path, startTimeoutMs: 2000 }));
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

function frame(kind: number, id: number, fields: Fields): Buffer {
  const writer = new Writer(64, 1 << 20);
  const at = beginFrame(writer, kind, id);
  encodeFields(writer, fields);
  endFrame(writer, at, 1 << 20);
  return Buffer.from(writer.written());
}

const HELLO = { version: 2, build: 'x', engine: '0'.repeat(64), pid: 1, debug: false, limits: {} };

test('a peer that breaks the protocol gets everything rejected with PROTOCOL_ERROR', async () => {
  const hello = frame(0x81, 0, HELLO);
  const peers: Record<string, Buffer> = {
    'text of another protocol': Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    'a frame of no bytes': Buffer.alloc(4),
    'no hello first': frame(0x89, 1, {}),
    'a hello without a field': frame(0x81, 0, { version: 2 }),
    'another version': frame(0x81, 0, { ...HELLO, version: 3 }),
    'an answer that nobody asked for': Buffer.concat([hello, frame(0x89, 77, {})]),
    'an answer of another kind': Buffer.concat([hello, frame(0x88, 1, { text: '' })]),
    'a malformed body': Buffer.concat([hello, Buffer.from('0200000093c1', 'hex')]),
  };
  for (const [what, bytes] of Object.entries(peers)) {
    await withPeer(bytes, async (runtime) => {
      const errors = await Promise.all([failure(runtime.ping()), failure(runtime.run('return 1'))]);
      for (const error of errors) assert.equal(error.code, 'PROTOCOL_ERROR', `${what}: ${error.message}`);
    });
  }
});

test('an error of the connection itself reaches everybody who waits, unknown codes as INTERNAL_ERROR', async () => {
  const refusal = { code: 'PROTOCOL_ERROR', message: 'client speaks 1 to 1, sidecar 2 to 3', retryable: false };
  await withPeer(frame(0xff, 0, { error: refusal }), async (runtime) => {
    const error = await failure(runtime.ping());
    assert.equal(error.code, 'PROTOCOL_ERROR');
    assert.equal(error.message, refusal.message);
  });
  const unknown = { code: 'NEW_CODE', message: 'from the future', retryable: true };
  await withPeer(Buffer.concat([frame(0x81, 0, HELLO), frame(0xff, 1, { error: unknown })]), async (runtime) => {
    const error = await failure(runtime.ping());
    assert.equal(error.code, 'INTERNAL_ERROR');
    assert.equal(error.retryable, true);
  });
});

test('an answer that is whole but wrong fails its own request only', async () => {
  const bytes = Buffer.concat([frame(0x81, 0, HELLO), frame(0x88, 1, { text: 5 }), frame(0x89, 2, {})]);
  await withPeer(bytes, async (runtime) => {
    const metrics = failure(runtime.getPrometheusMetrics());
    await runtime.ping();
    assert.equal((await metrics).code, 'PROTOCOL_ERROR');
  });
});

test('a socket that is not there or closes rejects with SIDECAR_GONE', async () => {
  const missing = await failure(new NexusRuntime({ connect: join(folder, 'missing') }).ping());
  assert.equal(missing.code, 'SIDECAR_GONE');
  assert.match(missing.message, /ENOENT/);
});
