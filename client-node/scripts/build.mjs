// Builds both module formats: dist/esm (NodeNext) and dist/cjs. Each folder carries a package.json that says its format,
// because the package itself is "type": "module". Built aside and then put in place, so that a build never leaves half of one
// behind and two at a time do not mix.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
const aside = mkdtempSync(join(root, '.build-'));
try {
  for (const [config, folder, type] of [
    ['tsconfig.json', 'esm', 'module'],
    ['tsconfig.cjs.json', 'cjs', 'commonjs'],
  ]) {
    const out = join(aside, folder);
    const { status } = spawnSync(process.execPath, [tsc, '-p', config, '--outDir', out], { cwd: root, stdio: 'inherit' });
    if (status !== 0) {
      process.exitCode = status ?? 1;
      break;
    }
    writeFileSync(join(out, 'package.json'), `${JSON.stringify({ type })}\n`);
    if (folder === 'esm') {
      // The other build's answer to where this package is; a bundler would have to bend it into a module.
      const program = join(out, 'program.js');
      const parts = readFileSync(program, 'utf8').split('./here.cjs');
      if (parts.length !== 2) throw new Error('program.js does not import ./here.cjs once');
      writeFileSync(program, parts.join('./here.mjs'));
      for (const name of ['here.cjs', 'here.d.cts']) rmSync(join(out, name));
      chmodSync(join(out, 'bin.js'), 0o755);
    } else {
      for (const name of ['bin.js', 'bin.d.ts']) rmSync(join(out, name));
    }
  }
  if (process.exitCode === undefined) {
    chmodSync(aside, 0o755); // mkdtemp makes it private
    rmSync(join(root, 'test-dist'), { recursive: true, force: true });
    rmSync(join(root, 'dist'), { recursive: true, force: true });
    renameSync(aside, join(root, 'dist'));
  }
} finally {
  rmSync(aside, { recursive: true, force: true });
}
