// Runs the tests under each major version of Node that the package is for: `npm run test:nodes`, or `-- 22` for one of them.
// The versions come from the registry (package `node`), so that nothing has to be installed.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';

const asked = process.argv.slice(2);
const majors = asked.length > 0 ? asked : ['20', '22', '24'];
const tests = readdirSync('test-dist').filter((name) => /\.test\.c?js$/.test(name)).map((name) => `test-dist/${name}`);
const failed = [];
for (const major of majors) {
  const npx = ['--yes', '-p', `node@${major}`, 'node'];
  const { stdout } = spawnSync('npx', [...npx, '--version'], { encoding: 'utf8' });
  console.log(`Node ${major}: ${stdout.trim()}`);
  const isIt = stdout.startsWith(`v${major}.`);
  if (!isIt || spawnSync('npx', [...npx, '--test', ...tests], { stdio: 'inherit' }).status !== 0) failed.push(major);
}
if (failed.length > 0) {
  console.error(`failed under Node ${failed.join(', ')}`);
  process.exitCode = 1;
}
