/** What a call is given is what it was at the call: each option is read once, and what its owner changes afterwards changes nothing. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';

import { createRuntime, formatError, NexusError, WasmRuntime, type AsyncResult, type HandlerContext } from '@nexus/sidecar';

import { ALL, ended, newFolder, newRuntime, sidecarBinary, WATCHDOG } from './sidecar.js';

const ECHO = 'return [$args, $scope, $state.get("a")]';
/** Each key that a context of any call has, and what it may be. */
const CONTEXT = {
  panelId: 'p',
  handlerName: 'h',
  state: { a: 1 },
  args: { b: 2 },
  scope: { c: 3 },
  capabilities: ['state:read:*'],
  limits: { maxHostCalls: 5 },
  strictCapabilities: false,
  suspendMode: 'await' as const,
  seed: 7,
};
const REGISTRY = { extensionRegistry: { http: ['get'] } };
const LOSSY = { lossy: 'throw' as const };

/** The same object with getters, and how often each was asked: in objects that are in it too. */
function counted<Given extends object>(given: Given, counts: Map<string, number>, path = ''): Given {
  if (Array.isArray(given)) {
    return new Proxy(given, {
      get(target, name, receiver) {
        if (typeof name === 'string' && /^\d+$/.test(name)) counts.set(`${path}[${name}]`, (counts.get(`${path}[${name}]`) ?? 0) + 1);
        return Reflect.get(target, name, receiver) as unknown;
      },
    });
  }
  const getters = {} as Given;
  for (const [name, value] of Object.entries(given) as [keyof Given & string, unknown][]) {
    const at = `${path}.${name}`;
    const inner = ['limits', 'capabilities', 'extensionRegistry', 'http'].includes(name) ? counted(value as object, counts, at) : value;
    Object.defineProperty(getters, name, {
      enumerable: true,
      get() {
        counts.set(at, (counts.get(at) ?? 0) + 1);
        return inner;
      },
    });
  }
  return getters;
}

test('each option of each call is read once', WATCHDOG, async () => {
  const runtime = newRuntime();
  const config = { binaryPath: sidecarBinary(), inferCapabilities: false };
  const [kernel, reactor] = [createRuntime(config), new WasmRuntime(config)];
  const { state, ...rest } = CONTEXT;
  const handle = await runtime.precompileHandler(ECHO, { suspendMode: 'await' });
  const suspended = async (): Promise<string> => {
    const { suspension } = await runtime.executeHandler('return await $ext.http.get()', { capabilities: ALL });
    return suspension?.suspensionId ?? assert.fail('it is not suspended');
  };
  const resident = await runtime.createState({ a: 1 });
  const run = { ...CONTEXT, ...LOSSY, labels: {}, timeoutMs: 5000, onSegment: () => undefined, onLog: () => undefined };
  const common = { ...CONTEXT, ...LOSSY, labels: {}, timeoutMs: 5000 };
  const calls: [string, object, (given: never) => unknown][] = [
    ['executeHandler', { ...CONTEXT, ...REGISTRY, ...LOSSY }, (given) => runtime.executeHandler(ECHO, given)],
    ['executeHandler of Buffers', { ...CONTEXT, state: Buffer.from([0x80]), args: Buffer.from([0xc0]) }, (given) => runtime.executeHandler(ECHO, given)],
    ['executeCompiledHandler', { ...CONTEXT, ...REGISTRY }, (given) => runtime.executeCompiledHandler(handle, given)],
    ['run', run, (given) => runtime.run(ECHO, given)],
    ['run of a handle', run, (given) => runtime.run(handle, given)],
    ['runMany, the common ones', common, (given) => runtime.runMany(ECHO, [{}, {}], given)],
    ['runMany, those of one', { ...CONTEXT, timeoutMs: 5000, code: ECHO }, (given) => runtime.runMany([given])],
    ['precompileHandler', { suspendMode: 'await' }, (given) => runtime.precompileHandler(ECHO, given)],
    ['resumeHandler', { success: true, value: 5 }, async (given: AsyncResult) => runtime.resumeHandler(await suspended(), given)],
    ['patch', { set: { a: 2 }, delete: [] }, (given) => resident.patch(given)],
    ['formatError', { source: 'x', color: false }, (given) => formatError(new NexusError('CANCELLED', 'x'), given)],
    ['kernel', { ...CONTEXT, state: Buffer.from([0x80]), ...REGISTRY }, (given) => kernel.execute(ECHO, given)],
    ['reactor', { ...rest, stateSnapshot: state, ...REGISTRY }, (given) => reactor.executeHandler(ECHO, given)],
  ];
  for (const [name, given, call] of calls) {
    const counts = new Map<string, number>();
    await call(counted(given, counts) as never);
    assert.deepEqual([...counts].filter(([, count]) => count !== 1), [], name);
    for (const key of Object.keys(given)) assert.ok(counts.has(`.${key}`), `${name}: ${key} was not read`);
  }
  await Promise.all([runtime.shutdown(), kernel.shutdown(), reactor.shutdown()]);
});

/** Everything in it that the caller still has, changed. */
function spoil(given: HandlerContext & { stateSnapshot?: object }): void {
  for (const part of [given.state, given.stateSnapshot, given.args, given.scope]) {
    if (part !== undefined) Object.assign(part as object, { a: 'later', b: 'later', c: 'later' });
  }
  (given.capabilities as string[]).splice(0, Infinity, 'nothing');
  Object.assign(given, { args: 'later', scope: 'later', state: {}, stateSnapshot: {} });
}

test('what is changed after the call is not what is run on, however late it is sent, and however often', WATCHDOG, async () => {
  const early = [{ b: 2 }, { c: 3 }, 1];
  const context = (): HandlerContext => ({ state: { a: 1 }, args: { b: 2 }, scope: { c: 3 }, capabilities: ['state:read:*'] });
  const cacheDir = newFolder('given');
  const runtime = newRuntime({ cacheDir });
  const spoiled = <Result>(call: (given: HandlerContext) => Promise<Result>): Promise<Result> => {
    const given = context();
    const answer = call(given);
    spoil(given);
    return answer;
  };
  // before there is a sidecar, and more than it takes at once
  const many = await Promise.all(Array.from({ length: 100 }, () => spoiled((given) => runtime.run(ECHO, given))));
  for (const { value } of many) assert.deepEqual(value, early);

  // handles that the next sidecar does not know
  const handles = await Promise.all([0, 1, 2, 3].map((at) => runtime.precompileHandler(`${ECHO} // ${at}`)));
  const { pid } = await runtime.start();
  process.kill(pid, 'SIGKILL');
  await ended(pid);
  rmSync(cacheDir, { recursive: true });
  const [first, second, third, fourth] = handles as [Buffer, Buffer, Buffer, Buffer];
  assert.deepEqual((await spoiled((given) => runtime.executeCompiledHandler(first, given))).returnValue, early);
  assert.deepEqual((await spoiled((given) => runtime.run(second, given))).value, early);
  const own = await spoiled((given) => runtime.runMany(third, [given as object, given as object]));
  for (const { value } of own) assert.deepEqual(value, early);
  const shared = await spoiled((given) => runtime.runMany(fourth, [{}, {}], given));
  for (const { value } of shared) assert.deepEqual(value, early);

  // more contexts than one frame takes: what they have in common is in each
  const contexts = Array.from({ length: 2500 }, (_, at) => ({ scope: { at } }));
  const common = context();
  const answers = runtime.runMany('return [$args, $state.get("a"), $scope.at]', contexts, common);
  spoil(common);
  for (const [at, { value }] of (await answers).entries()) assert.deepEqual(value, [{ b: 2 }, 1, at]);
  await runtime.shutdown();

  // a door that has to ask first what the handler needs, and one that has asked before
  const config = { binaryPath: sidecarBinary(), inferCapabilities: true };
  const [kernel, reactor] = [createRuntime(config), new WasmRuntime(config)];
  for (let round = 0; round < 2; round++) {
    const { state, ...rest } = { ...context(), capabilities: [] as string[] };
    const given = { ...rest, stateSnapshot: state as Record<string, unknown> };
    const answer = reactor.executeHandler(ECHO, given as never);
    spoil(given);
    assert.deepEqual((await answer).returnValue, early, `reactor, round ${round}`);
    const [a, b] = [Buffer.from([0x81, 0xa1, 0x61, 1]), Buffer.from([0x81, 0xa1, 0x62, 2])];
    const packed = kernel.execute(ECHO, { state: a, args: b, scope: b, capabilities: [] } as never);
    a[3] = 9;
    b[3] = 9;
    assert.deepEqual((await packed).returnValue, Buffer.from([0x93, 0x81, 0xa1, 0x62, 2, 0x81, 0xa1, 0x62, 2, 1]), `kernel, round ${round}`);
  }
  await Promise.all([kernel.shutdown(), reactor.shutdown()]);
  rmSync(cacheDir, { recursive: true, force: true });
});
