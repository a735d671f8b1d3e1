/**
 * Mistakes of callers that would otherwise go unnoticed: names that nobody knows, objects that keep what they hold elsewhere, values
 * where they mean nothing. Each kind is a table of every place where it can be made.
 */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';

import {
  applyMutations,
  configFromEnv,
  createRuntime,
  encoded,
  encodePayload,
  formatError,
  NexusError,
  NexusRuntime,
  WasmRuntime,
  type ResidentState,
} from '@nexus/sidecar';

import { ALL, failure, newRuntime, sidecarBinary, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ maxInstances: 2 });
after(() => runtime.shutdown());

/** A rejection or a throw. */
async function refusal(place: string, call: () => unknown): Promise<NexusError> {
  const error: unknown = await (async () => call())().then(
    () => assert.fail(`${place}: nothing was refused`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof NexusError, `${place}: ${String(error)}`);
  return error;
}

/** Every object of the API whose properties are known by name: who takes it, and a known name of it with a value. */
function optionsOf(state: ResidentState, handle: Buffer, suspensionId: string): [string, (options: any) => unknown, string, unknown][] {
  const error = new NexusError('EXECUTION_ERROR', 'x');
  return [
    ['the configuration', (config) => new NexusRuntime(config), 'maxInstances', 1],
    ['context of executeHandler', (context) => runtime.executeHandler('return 1', context), 'capabilities', ALL],
    ['context of executeCompiledHandler', (context) => runtime.executeCompiledHandler(handle, context), 'args', 1],
    ['options of executeHandler', (options) => runtime.executeHandler('return 1', {}, 100, options), 'signal', AbortSignal.abort()],
    ['options of executeCompiledHandler', (options) => runtime.executeCompiledHandler(handle, {}, 100, options), 'signal', AbortSignal.abort()],
    ['options of resumeHandler', (options) => runtime.resumeHandler(suspensionId, { success: true }, options), 'signal', AbortSignal.abort()],
    ['the result for resumeHandler', (result) => runtime.resumeHandler(suspensionId, Array.isArray(result) || result instanceof Map ? result : { success: true, ...result }), 'value', 5],
    ['options of precompileHandler', (options) => runtime.precompileHandler('return 1', options), 'suspendMode', 'await'],
    ['options of run', (options) => runtime.run('return 1', options), 'timeoutMs', 100],
    ['limits of run', (limits) => runtime.run('return 1', { limits }), 'maxEvents', 1],
    ['limits of executeHandler', (limits) => runtime.executeHandler('return 1', { limits }), 'maxHostCalls', 1],
    ['a patch, its version', (patch) => state.patch(patch), 'expectVersion', 77],
    ['a patch, what it sets', (patch) => state.patch(patch), 'set', { n: 2 }],
    ['a patch, what it deletes', (patch) => state.patch(patch), 'delete', ['n']],
    ['options of formatError', (options) => formatError(error, options), 'source', 'return 1'],
    ['configuration of the kernel', (config) => doorCall(createRuntime(config)), 'maxInstances', 1],
    ['configuration of the reactor', (config) => doorCall(new WasmRuntime(config)), 'maxInstances', 1],
  ];
}

/** What a door has against its configuration is told by its calls. */
async function doorCall(door: { shutdown(): Promise<void> } & ({ precompile(code: string): unknown } | { precompileHandler(code: string): unknown })): Promise<unknown> {
  try {
    return await ('precompile' in door ? door.precompile('return 1') : door.precompileHandler('return 1'));
  } finally {
    await door.shutdown();
  }
}

/** Two letters swapped. */
function misspelt(name: string): string {
  return `${name.slice(0, -2)}${name.at(-1)}${name.at(-2)}`;
}

async function suspended(): Promise<string> {
  const { suspension } = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  assert.ok(suspension !== undefined);
  return suspension.suspensionId;
}

test('a name that an options object does not have is refused, with the one that is near', WATCHDOG, async () => {
  process.env['NEXUS_SIDECAR_BIN'] ??= sidecarBinary();
  const id = await suspended();
  await using state = await runtime.createState({ n: 1 });
  const handle = await runtime.precompileHandler('return 1');
  for (const [place, call, name, value] of optionsOf(state, handle, id)) {
    const error = await refusal(place, () => call({ [misspelt(name)]: value }));
    assert.equal(error.code, 'INVALID_ARGUMENT', place);
    assert.match(error.message, new RegExp(`unknown .*\`${misspelt(name)}\`; did you mean \`${name}\``), place);
  }
  // nothing was done, and the suspension still waits
  assert.deepEqual(await state.snapshot(), { version: 1, state: { n: 1 } });
  assert.equal((await runtime.resumeHandler(id, { success: true, value: 5 })).returnValue, 5);
  // what is undefined is not there
  assert.equal(await state.patch({ sett: undefined } as object), 1);
});

test('an object that keeps what it holds elsewhere is refused where a plain one is meant', WATCHDOG, async () => {
  class Options {
    get timeoutMs(): number {
      return 1;
    }
  }
  const id = await suspended();
  await using state = await runtime.createState({ n: 1 });
  const handle = await runtime.precompileHandler('return 1');
  const places: [string, (options: any) => unknown][] = [
    ...optionsOf(state, handle, id).map(([place, call]): [string, (options: any) => unknown] => [place, call]),
    ['extensions', (extensions) => runtime.run('return 1', { extensions })],
    ['labels', (labels) => runtime.run('return 1', { labels })],
    ['extensionRegistry', (extensionRegistry) => runtime.executeHandler('return 1', { extensionRegistry })],
    ['env', (env) => new NexusRuntime({ env })],
    ['environment of configFromEnv', (env) => configFromEnv(env)],
    ['state of applyMutations', (given) => applyMutations(given, [])],
  ];
  for (const [place, call] of places) {
    for (const given of [new Map([['timeoutMs', 1]]), [1], new Options(), Object.create({ timeoutMs: 1 }) as object]) {
      // spread into the result, these two have nothing that would be lost
      if (place === 'the result for resumeHandler' && !(given instanceof Map) && !Array.isArray(given)) continue;
      const error = await refusal(place, () => call(given));
      assert.equal(error.code, 'INVALID_ARGUMENT', place);
      assert.match(error.message, /a plain object is needed/, place);
    }
  }
  const bare = Object.assign(Object.create(null) as object, { timeoutMs: 20_000 });
  assert.equal((await runtime.run('return 1', bare)).value, 1);
  assert.deepEqual(Object.keys(configFromEnv(process.env)).filter((key) => key === 'timeoutMs'), []);
  await runtime.cancel(id);
});

test('a mutation that is neither of the two is refused', () => {
  assert.throws(() => applyMutations({ a: 1 }, [{ op: 'sett', key: 'a', value: 2 } as never]), { code: 'INVALID_ARGUMENT' });
});

test('a limit that is undefined is absent', WATCHDOG, async () => {
  const limits = { maxEvents: undefined, maxHostCalls: 1 } as unknown as Record<string, number>;
  assert.equal((await runtime.run('$emit("e", 1); return 1', { limits, capabilities: ALL })).value, 1);
  const error = await failure(runtime.run('$emit("e", 1); $emit("e", 1); return 1', { limits, capabilities: ALL }));
  assert.equal(error.code, 'RESOURCE_LIMIT');
});

const other = createRequire(import.meta.url)('@nexus/sidecar') as typeof import('@nexus/sidecar');

test('what stands for something else is refused where it would be taken for a value', WATCHDOG, async () => {
  assert.notEqual(other.NexusRuntime, NexusRuntime);
  const foreign = new other.NexusRuntime({ binaryPath: sidecarBinary(), maxInstances: 1 });
  await using state = await runtime.createState({ n: 1 });
  const foreignState = await foreign.createState({ n: 2 });
  const seven = encodePayload(7);
  const standIns: [unknown, RegExp][] = [
    [encoded(seven), /`encoded`.*createState and patch/],
    [other.encoded(seven), /`encoded`.*createState and patch/],
    [state, /resident state/],
    [state.exclusive(), /resident state/],
    [foreignState, /resident state/],
    [foreignState.expect(1), /resident state/],
  ];
  const places: [string, (it: unknown) => Promise<unknown>][] = [
    ['within args', (it) => runtime.run('return $args', { args: { a: it } })],
    ['within an array', (it) => runtime.executeHandler('return $args', { args: [it] })],
    ['within a Map in scope', (it) => runtime.executeHandler('return $args', { scope: new Map([['a', it]]) })],
    ['within a state', (it) => runtime.run('return $args', { state: { a: it } })],
    ['within args, lossless', (it) => runtime.run('return $args', { args: { a: it }, lossy: 'throw' })],
    ['a new state', (it) => runtime.createState(it)],
    ['within a new state', (it) => runtime.createState({ a: it })],
    ['what a patch sets', (it) => state.patch({ set: it as never })],
    ['within what a patch sets', (it) => state.patch({ set: { a: it } })],
  ];
  for (const [it, message] of standIns) {
    for (const [place, give] of places) {
      const error = await refusal(place, () => give(it));
      assert.equal(error.code, 'INVALID_ARGUMENT', place);
      assert.match(error.message, message, place);
    }
    const asks = 'try { return await $ext.a.b() } catch (e) { return [e.code, e.message] }';
    const { value } = await runtime.run(asks, { extensions: { a: { b: () => ({ it }) } } });
    assert.equal((value as unknown[])[0], 'INVALID_ARGUMENT');
    assert.throws(() => encodePayload({ it }), { code: 'INVALID_ARGUMENT' });
  }
  assert.deepEqual(await state.snapshot(), { version: 1, state: { n: 1 } });
  for (const resident of [state, state.exclusive()]) {
    for (const lossy of ['drop', 'throw'] as const) {
      assert.match((await failure(runtime.run('return $args', { args: resident, lossy }))).message, /resident state/);
    }
  }
  // of the other build: known, or said to belong elsewhere
  for (const stranger of [foreignState, foreignState.expect(1)]) {
    const error = await failure(runtime.run('return $state.n', { state: stranger as never, capabilities: ALL }));
    assert.deepEqual([error.code, /belongs to a/.test(error.message)], ['INVALID_ARGUMENT', true]);
  }
  assert.equal((await foreign.run('return $state.n', { state: foreignState, capabilities: ALL })).value, 2);
  for (const its of [encoded, other.encoded]) {
    assert.equal((await runtime.run('return $args', { args: its(seven) })).value, 7);
    assert.equal((await runtime.run('return await $ext.a.b()', { extensions: { a: { b: () => its(seven) } } })).value, 7);
    const buffers = { state: encodePayload({}), args: its(seven) as never };
    assert.deepEqual((await runtime.executeHandler('return $args', buffers)).returnValue, seven);
  }
  await foreign.shutdown();
});

test('an extension that no handler could call is refused', WATCHDOG, async () => {
  const get = (): number => 7;
  const uncallable: [object, string[]?][] = [
    [{ 'a.b': { get } }],
    [{ 'a.b': { get } }, ['ext:a.b']],
    [{ '': { get } }],
    [{ 'a\ud800': { get } }],
    [{ x: { get, '\udc00': get } }],
    ...['exists', 'list', 'methods', 'then', 'toJSON'].map((name): [object] => [{ [name]: { get } }]),
    ...['then', 'toJSON'].map((name): [object] => [{ x: { get, [name]: get } }]),
  ];
  for (const [extensions, capabilities] of uncallable) {
    const options = { extensions: extensions as never, ...(capabilities === undefined ? {} : { capabilities }) };
    const error = await failure(runtime.run('return 1', options));
    assert.deepEqual([error.code, /^no handler could call/.test(error.message)], ['INVALID_ARGUMENT', true], Object.keys(extensions)[0]);
  }
  const call = 'return await $ext[$args[0]][$args[1]]()';
  for (const [name, method] of [['__proto__', 'get'], ['constructor', 'toString'], ['x', 'list'], ['x', 'a.b'], ['a:b', ''], ['\u{1f600}', 'catch']] as const) {
    const extensions = { [name]: { [method]: get } };
    assert.equal((await runtime.run(call, { args: [name, method], extensions })).value, 7, `${name}.${method}`);
  }
  assert.equal((await runtime.run(call, { args: ['a.b', 'get'], extensions: { 'a.b': { get } }, capabilities: ['ext:*'] })).value, 7);
});

test('half a surrogate pair in a handler or a capability is refused, since neither would arrive as it is', WATCHDOG, async () => {
  for (const half of ['\ud800', 'x\udc00y', '\udc00\ud800']) {
    for (const use of [
      (): Promise<unknown> => runtime.run(`return 1 +\n "${half}".length`),
      (): Promise<unknown> => runtime.executeHandler(`return 1 +\n "${half}".length`, {}),
      (): Promise<unknown> => runtime.precompileHandler(`return 1 +\n "${half}".length`),
      (): Promise<unknown> => runtime.checkHandler(`return 1 +\n "${half}".length`),
    ]) {
      const error = await failure(use());
      assert.deepEqual([error.code, /half a surrogate pair in line 2, .* \\ud[8c]00$/.test(error.message)], ['INVALID_ARGUMENT', true], error.message);
    }
    const error = await failure(runtime.run('return 1', { capabilities: [`state:read:${half}`] }));
    assert.deepEqual([error.code, /^`capabilities` has half a surrogate pair in /.test(error.message)], ['INVALID_ARGUMENT', true], error.message);
  }
  assert.equal((await runtime.run('return "\u{1f600}".length', { capabilities: ['state:read:\u{1f600}'] })).value, 2);
});
