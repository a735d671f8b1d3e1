/** What tools of others say of the package: its API reference, its exports, its types as programs of each kind see them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { newFolder } from './sidecar.js';

// They read and check everything, each on a machine that may be busy with other tests.
const WATCHDOG = { timeout: 600_000 };

const packageRoot = fileURLToPath(new URL('..', import.meta.url));
const folder = newFolder('tools');
after(() => rmSync(folder, { recursive: true }));

/** Runs one of the development dependencies; what it says, if it is content. */
function runTool(name: string, args: string[], cwd = packageRoot): string {
  const program = join(packageRoot, 'node_modules', '.bin', name);
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } });
  assert.equal(status, 0, `${name}: ${stdout}${stderr}`);
  return stdout + stderr;
}

test('the API reference is made without a warning', WATCHDOG, () => {
  const entries = ['src/index.ts', 'src/dialects/kernel.ts', 'src/dialects/reactor.ts'];
  const options = ['--tsconfig', 'tsconfig.json', '--treatWarningsAsErrors', '--excludeInternal', '--readme', 'none'];
  // links to a repository depend on where this one was taken from
  options.push('--disableSources');
  const said = runTool('typedoc', [...entries, ...options, '--out', join(folder, 'api')]);
  assert.doesNotMatch(said, /\[(warning|error)\]/);
});

test('the exports of the package are found, with their types, however it is loaded', WATCHDOG, () => {
  // without its scripts: they would build again what other tests run on
  const packed = spawnSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], { cwd: packageRoot, encoding: 'utf8' });
  const [{ filename }] = JSON.parse(packed.stdout) as [{ filename: string }];
  assert.equal(spawnSync('tar', ['-xzf', filename], { cwd: folder }).status, 0);
  runTool('publint', ['--strict', '--pack', 'false', join(folder, 'package')]);
  // of `handler` there are only types: nobody imports it
  const said = runTool('attw', [join(folder, filename), '--format', 'ascii', '--no-emoji', '--exclude-entrypoints', 'handler']);
  assert.match(said, /No problems found/);
});

const PROGRAM = `
import { NexusRuntime, configFromEnv, type ManyResult, type RunResult } from '@nexus/sidecar';
import { createRuntime } from '@nexus/sidecar/kernel';
import { WasmRuntime } from '@nexus/sidecar/reactor';
export async function main(runtime: NexusRuntime = new NexusRuntime(configFromEnv(process.env))): Promise<number> {
  interface State { n: number }
  const options = { state: { n: 1 }, extensions: { db: { get: async (key: string) => key.length } } };
  const one: RunResult<State, number> = await runtime.run<number, State>('return $state.n', options);
  const many: ManyResult<number>[] = await runtime.runMany<number>('return $args', [{ args: 1 }], { onExtensionError: () => undefined });
  const [first] = many;
  return one.value + (first?.status === 'success' ? first.value : 0) + (createRuntime === undefined || WasmRuntime === undefined ? 1 : 0);
}
`;

const SETTINGS: Record<string, Record<string, unknown>> = {
  node10: { module: 'CommonJS', moduleResolution: 'Node10' },
  node16: { module: 'Node16', moduleResolution: 'Node16' },
  nodenext: { module: 'NodeNext', moduleResolution: 'NodeNext' },
  bundler: { module: 'ESNext', moduleResolution: 'Bundler' },
  exact: { module: 'NodeNext', moduleResolution: 'NodeNext', exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, verbatimModuleSyntax: true },
};

test('programs of each kind are checked against its types', WATCHDOG, () => {
  const installed = join(folder, 'node_modules', '@nexus', 'sidecar');
  mkdirSync(installed, { recursive: true });
  for (const part of ['dist', 'package.json']) cpSync(join(packageRoot, part), join(installed, part), { recursive: true });
  for (const [name, setting] of Object.entries(SETTINGS)) {
    const program = join(folder, name);
    mkdirSync(program);
    writeFileSync(join(program, 'main.ts'), PROGRAM);
    writeFileSync(join(program, 'package.json'), JSON.stringify({ type: name === 'exact' ? 'module' : 'commonjs' }));
    const compilerOptions = {
      ...setting, target: 'ES2022', lib: ['ES2022', 'ESNext.Disposable'], strict: true, noEmit: true, skipLibCheck: false,
      typeRoots: [join(packageRoot, 'node_modules', '@types')], types: ['node'],
    };
    writeFileSync(join(program, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }));
    runTool('tsc', ['-p', '.'], program);
  }
});
