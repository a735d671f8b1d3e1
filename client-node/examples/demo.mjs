// Starts the sidecar and runs six handlers: a counter, a profile that is fetched while the screen says "loading", two requests
// at once, an endless loop, a missing capability, a syntax error. Exits by itself, with code 0 only if each did what it should.
//
//   npm run build && node examples/demo.mjs          (NEXUS_SIDECAR_BIN, else ../target/release/nexus-sidecar)
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';

import { applyMutations, NexusError, NexusRuntime } from '@nexus/sidecar';

const built = fileURLToPath(new URL('../../target/release/nexus-sidecar', import.meta.url));
const binaryPath = process.env.NEXUS_SIDECAR_BIN ?? (existsSync(built) ? built : undefined);

const colors = process.stdout.isTTY && process.env.NO_COLOR === undefined;
const paint = (code) => (text) => (colors ? `\x1b[${code}m${text}\x1b[0m` : text);
const [bold, dim, red, green, cyan] = [1, 2, 31, 32, 36].map(paint);

let failures = 0;
let zero = performance.now();
const clock = () => dim(`${(performance.now() - zero).toFixed(1).padStart(7)} ms`);
const show = (value) => JSON.stringify(value);

function title(text) {
  console.log(`\n${bold(text)}`);
  zero = performance.now();
}

function check(what, ok) {
  console.log(`  ${ok ? green('ok') : red('NOT OK')}  ${what}`);
  if (!ok) failures++;
}

function printSegment({ seq, stateMutations, events, viewCommands, logs, suspensions }) {
  const effects = [
    ...stateMutations.map(({ op, key, value }) => (op === 'set' ? `${key} = ${show(value)}` : `delete ${key}`)),
    ...events.map(({ name, payload }) => `emit ${name} ${show(payload)}`),
    ...viewCommands.map(({ viewId, command, params }) => `view ${viewId}.${command} ${show(params)}`),
    ...logs.map(({ level, message }) => `log ${level}: ${message}`),
  ];
  const waits = suspensions.map(({ extensionName, method, args }) => `${extensionName}.${method}(${args.map(show).join(', ')})`);
  console.log(`  ${clock()}  ${cyan(`segment ${seq}`)}  ${effects.join('; ') || dim('no effects')}`);
  if (waits.length > 0) console.log(`  ${' '.repeat(10)}  ${dim(`waits for ${waits.join(' and ')}`)}`);
}

// The place of an error in the handler's source: the line, its number, and a caret under the column.
function printError(error, source) {
  console.log(`  ${clock()}  ${red(error.code)}  ${error.message}`);
  if (error.location === undefined) return;
  const { line, column } = error.location;
  const text = source.split('\n')[line - 1] ?? '';
  const margin = `${String(line).padStart(6)} | `;
  console.log(`  ${dim(margin)}${text}`);
  console.log(`  ${' '.repeat(margin.length)}${text.slice(0, column - 1).replace(/[^\t]/g, ' ')}${red('^')}`);
}

async function run(runtime, source, options) {
  const result = await runtime.run(source, { onSegment: printSegment, ...options });
  const { durationUs, cpuUs } = result.metrics;
  console.log(`  ${clock()}  returned ${show(result.value)}  ${dim(`(${durationUs} us in the sidecar, ${cpuUs} us of CPU)`)}`);
  return result;
}

async function fail(runtime, source, options) {
  try {
    const { value } = await run(runtime, source, options);
    return { code: 'no error', message: show(value) };
  } catch (error) {
    if (!(error instanceof NexusError)) throw error;
    printError(error, source);
    return error;
  }
}

// A web server of our own, so that the demo needs no network. It is slow on purpose.
const users = { '/users/7': { name: 'Ada', plan: 'pro' }, '/weather': { sky: 'clear' }, '/news': { items: 3 } };
const server = createServer((request, response) => {
  const body = users[request.url];
  setTimeout(() => {
    response.writeHead(body === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(show(body ?? { error: 'not found' }));
  }, 40);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const base = `http://127.0.0.1:${server.address().port}`;

const requests = [];
const http = {
  async get(path) {
    const from = performance.now();
    const response = await fetch(base + path, { headers: { connection: 'close' } });
    if (!response.ok) throw Object.assign(new Error(`GET ${path}: ${response.status}`), { code: 'HTTP_ERROR' });
    const body = await response.json();
    requests.push({ path, from, to: performance.now() });
    return body;
  },
};

const runtime = new NexusRuntime({ binaryPath, debug: true });
try {
  title('The sidecar');
  const { build, engine, pid } = await runtime.start();
  console.log(`  ${clock()}  nexus-sidecar ${build}, pid ${pid}, engine ${engine.slice(0, 12)}`);

  title('1. A counter');
  let state = { count: 41 };
  const counter = await run(
    runtime,
    `$state.count += $args.by;
     $emit('counted', { count: $state.count });
     return $state.count;`,
    { state, args: { by: 1 }, capabilities: ['state:read:count', 'state:write:count', 'events:emit:counted'] },
  );
  state = applyMutations(state, counter.stateMutations);
  check('42 is returned, in the state and in the event', counter.value === 42 && state.count === 42 && counter.events[0]?.payload.count === 42);

  title('2. A profile: the loading flag is delivered before the answer is there');
  let loadingAt;
  const profile = await run(
    runtime,
    `$state.loading = true;
     try {
       $state.profile = await $ext.http.get('/users/' + $args.id);
       $emit.toast('Welcome, ' + $state.profile.name);
     } finally {
       $state.loading = false;
     }
     return $state.profile.plan;`,
    {
      state: { loading: false, profile: null },
      args: { id: 7 },
      capabilities: ['state:read:*', 'state:write:*', 'events:emit:*', 'ext:http.get'],
      extensions: { http },
      onSegment(segment) {
        printSegment(segment);
        if (segment.stateMutations.some(({ key, value }) => key === 'loading' && value === true)) loadingAt = performance.now();
      },
    },
  );
  const answeredAt = requests.at(-1)?.to ?? 0;
  check('the plan came from the server', profile.value === 'pro');
  check(`loading was shown ${(answeredAt - loadingAt).toFixed(1)} ms before the answer`, loadingAt < answeredAt - 30);
  check('in the end nothing is loading', applyMutations({}, profile.stateMutations).loading === false);

  title('3. Two requests at once');
  requests.length = 0;
  const both = await run(
    runtime,
    `const [weather, news] = await Promise.all([$ext.http.get('/weather'), $ext.http.get('/news')]);
     return { ...weather, ...news };`,
    { capabilities: ['ext:http'], extensions: { http } },
  );
  check('both answers arrived', isDeepStrictEqual(both.value, { sky: 'clear', items: 3 }));
  const [first, second] = requests;
  check('the requests overlapped', requests.length === 2 && first.from < second.to && second.from < first.to);

  title('4. A handler that loops for ever');
  const loop = await fail(runtime, `let n = 0;\nwhile (true) n++;`, { timeoutMs: 100 });
  check('it was stopped by its deadline', loop.code === 'TIMEOUT');

  title('5. A handler that lacks a capability');
  const denied = await fail(runtime, `const name = $state.name;\nreturn name + $state.password;`, {
    state: { name: 'Ada', password: 'secret' },
    capabilities: ['state:read:name'],
  });
  check('it was refused, by the name of the token', denied.code === 'PERMISSION_DENIED' && denied.capability === 'state:read:password');
  check('at its line', denied.location?.line === 2);

  title('6. A handler with a syntax error');
  const syntax = await fail(runtime, `const a = 1;\nconst b = 2;\nconst c = a +* b;\nreturn c;`);
  check('it does not compile', syntax.code === 'COMPILATION_ERROR');
  check('the error is on line 3', syntax.location?.line === 3);
} catch (error) {
  failures++;
  console.log(`\n${red('The demo failed:')} ${error instanceof NexusError ? `${error.code}: ${error.message}` : error.stack}`);
} finally {
  await runtime.shutdown();
  server.close();
}

console.log(failures === 0 ? `\n${green('Everything did what it should.')}` : `\n${red(`${failures} not as it should be.`)}`);
process.exitCode = failures === 0 ? 0 : 1;
