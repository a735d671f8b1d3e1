/**
 * What a caller says and what would be dropped: values of a wrong type under a right name, arguments that a function does not take, options
 * that mean nothing beside others, results that say two things. Each kind is a table of every place where it can be said.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import {
  applyMutations,
  configFromEnv,
  createRuntime,
  currentCall,
  decodePayload,
  encodePayload,
  formatError,
  NexusError,
  NexusRuntime,
  WasmRuntime,
} from '@nexus/sidecar';

import { ALL, failure, newRuntime, sidecarBinary, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ maxInstances: 2, timeoutMs: 30_000 });
after(() => runtime.shutdown());

async function refused(place: string, message: RegExp, call: () => unknown): Promise<void> {
  const error: unknown = await (async () => call())().then(
    () => assert.fail(`${place}: nothing was refused`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof NexusError, `${place}: ${String(error)}`);
  assert.deepEqual([error.code, message.test(error.message)], ['INVALID_ARGUMENT', true], `${place}: ${error.message}`);
}

test('a value of a wrong type is refused, whoever it is for', WATCHDOG, async () => {
  const error = new NexusError('EXECUTION_ERROR', 'x');
  const wrong: [string, RegExp, () => unknown][] = [
    ['source', /`source` is not a string/, () => formatError(error, { source: 5 as never })],
    ['source null', /`source` is not a string/, () => formatError(error, { source: null as never })],
    ['color', /`color` is not a boolean/, () => formatError(error, { color: 'yes' as never })],
    ['handlerName', /`handlerName` is not a string/, () => formatError(error, { handlerName: 5 as never })],
    ['label of run', /label `n` is not a string/, () => runtime.run('return 1', { labels: { n: 5 as never } })],
    ['label of runMany', /label `n` is not a string/, () => runtime.runMany('return 1', [{}], { labels: { n: {} as never } })],
    ['variable', /variable `A` of `env` must be a string/, () => new NexusRuntime({ env: { A: 5 as never } })],
    ['variable null', /variable `A` of `env` must be a string/, () => new NexusRuntime({ env: { A: null as never } })],
    ['name of a variable', /no process can have/, () => new NexusRuntime({ env: { 'A=B': 'x' } })],
    ['NUL in a variable', /no process can have/, () => new NexusRuntime({ env: { A: 'a\0' } })],
    ['NUL in a path', /`cacheDir` has a NUL/, () => new NexusRuntime({ cacheDir: 'a\0b' })],
    ['empty program', /`binaryPath` is empty/, () => new NexusRuntime({ binaryPath: '' })],
    ['empty socket', /`connect` is empty/, () => new NexusRuntime({ connect: '' })],
    ['number of configFromEnv', /MAX_INSTANCES must be a string/, () => configFromEnv({ MAX_INSTANCES: 4 as never })],
    ['path of configFromEnv', /CACHE_DIR must be a string/, () => configFromEnv({ CACHE_DIR: 5 as never })],
    ['payload', /`decodePayload` takes/, () => decodePayload('x' as never)],
    ['no mutations', /not an array/, () => applyMutations({}, null as never)],
    ['null as a mutation', /a mutation is not an object/, () => applyMutations({}, [null as never])],
    ['key of a mutation', /`key` is not a string/, () => applyMutations({}, [{ op: 'set', key: 5 as never, value: 1 }])],
    ['misspelt mutation', /did you mean `key`/, () => applyMutations({}, [{ op: 'set', kye: 'a', value: 1 } as never])],
  ];
  for (const [place, message, call] of wrong) await refused(place, message, call);
  // a value that begins with a dash is none of the program's flags
  const dashed = await failure(newRuntime({ quickjsModulePath: '--help' }).run('return 1'));
  assert.doesNotMatch(dashed.message, /a value is required/);
  assert.deepEqual(applyMutations({ a: 1 }, [{ op: 'delete', key: 'a', value: undefined } as never]), {});
});

test('an argument that a function does not take is refused', WATCHDOG, async () => {
  await using state = await runtime.createState({ n: 1 });
  const handle = await runtime.precompileHandler('return 1');
  const { suspension } = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  const id = suspension?.suspensionId as string;
  const more = { timeoutMs: 5 };
  const any = runtime as any;
  const calls: [string, () => unknown][] = [
    ['run', () => any.run('return 1', {}, more)],
    ['runMany', () => any.runMany('return 1', [{}], {}, more)],
    ['executeHandler', () => any.executeHandler('return 1', {}, 5, {}, more)],
    ['executeCompiledHandler', () => any.executeCompiledHandler(handle, {}, 5, {}, more)],
    ['resumeHandler', () => any.resumeHandler(id, { success: true }, {}, more)],
    ['precompileHandler', () => any.precompileHandler('return 1', {}, more)],
    ['checkHandler', () => any.checkHandler('return 1', more)],
    ['inferCapabilities', () => any.inferCapabilities('return 1', more)],
    ['cancel', () => any.cancel(id, more)],
    ['createState', () => any.createState({}, { lossy: 'throw' })],
    ['patch', () => (state as any).patch({ set: { n: 2 } }, { expectVersion: 7 })],
    ['snapshot', () => (state as any).snapshot(['n'], more)],
  ];
  for (const [name, call] of calls) await refused(name, new RegExp(`^\`${name}\` takes \\d arguments? at the most`), call);
  assert.deepEqual(await state.snapshot(), { version: 1, state: { n: 1 } });
  assert.equal(await runtime.cancel(id), true);
});

test('what is said of a program beside a socket is refused, since no program is started', () => {
  for (const [name, value] of [['env', {}], ['binaryPath', '/x'], ['onLog', () => undefined]] as const) {
    assert.throws(() => new NexusRuntime({ connect: '/x', [name]: value }), { code: 'INVALID_ARGUMENT', message: new RegExp(`remove ${name}$`) });
  }
});

test('a result of an extension call says one thing', WATCHDOG, async () => {
  const { suspension } = await runtime.executeHandler('return await $ext.a.b()', { capabilities: ALL });
  const id = suspension?.suspensionId as string;
  const results = [
    { success: true, error: 'x' },
    { success: false, value: 5 },
    { success: false, error: 5 },
    { success: false, error: null },
    { success: false, error: { message: 5 } },
    { success: false, error: { message: 'm', nmae: 'x' } },
  ];
  for (const result of results) await refused(JSON.stringify(result), /result of an extension call|`error` of the result|unknown field/, () => runtime.resumeHandler(id, result as never));
  assert.equal((await runtime.resumeHandler(id, { success: true, value: 5 })).returnValue, 5);
});

test('a Promise is no value: the await that was forgotten is named', WATCHDOG, async () => {
  const error = await failure(runtime.run('return $args', { args: { a: Promise.resolve(1) } }));
  assert.deepEqual([error.code, error.message], ['SERIALIZATION_ERROR', 'a Promise is no value: await it']);
  const code = 'try { return await $ext.a.b() } catch (e) { return e.message }';
  assert.match(String((await runtime.run(code, { extensions: { a: { b: () => [Promise.resolve(1)] } } })).value), /await it/);
});

test('labels are those of the call, whatever becomes of the object', WATCHDOG, async () => {
  const labels = { tenant: 'a' };
  const extensions = { a: { b: () => currentCall().labels['tenant'] } };
  const run = runtime.run('return await $ext.a.b()', { labels, extensions });
  const many = runtime.runMany('return await $ext.a.b()', [{}], { labels, extensions });
  labels.tenant = 'b';
  assert.deepEqual([(await run).value, (await many)[0]?.value], ['a', 'a']);
});

test('a context of a door is refused for a name that is near one or of another call, and Node warns of any other', WATCHDOG, async () => {
  const kernel = createRuntime({ binaryPath: sidecarBinary(), maxInstances: 1 });
  const reactor = new WasmRuntime({ binaryPath: sidecarBinary(), maxInstances: 1 });
  const buffers = { panelId: 'p', handlerName: 'h', state: encodePayload({}), args: encodePayload(1), scope: encodePayload(1), capabilities: [] };
  for (const name of ['capabilites', 'sope', 'timeoutMs', 'signal', 'stateSnapshot']) {
    await refused(`kernel ${name}`, /unknown field of the context/, () => kernel.execute('return 1', { ...buffers, [name]: 1 }));
  }
  for (const name of ['capabilites', 'stateSnapshoot', 'extensions', 'state']) {
    await refused(`reactor ${name}`, /unknown field of the context/, () => reactor.executeHandler('return 1', { [name]: {} }));
  }
  const warning = new Promise<Error>((resolve) => process.once('warning', resolve));
  assert.equal((await reactor.executeHandler('return 1', { $$typeof: 1 } as never)).returnValue, 1);
  assert.match((await warning).message, /`\$\$typeof`/);
  await Promise.all([kernel.shutdown(), reactor.shutdown()]);
});

test('a door tells what of a call does not count, and the logs', WATCHDOG, async () => {
  const kernel = createRuntime({ binaryPath: sidecarBinary(), maxInstances: 1 });
  const reactor = new WasmRuntime({ binaryPath: sidecarBinary(), maxInstances: 1, timeoutMs: 60_000 });
  const buffers = { panelId: 'p', handlerName: 'h', state: encodePayload({}), args: encodePayload(1), scope: encodePayload(1), capabilities: [] };
  assert.equal((await kernel.execute('return 1', buffers, 1e9)).limited?.['timeoutMs'], 5000);
  const result = await reactor.executeHandler('$log.info("x"); return 1', {}, 1e9);
  assert.deepEqual([result.limited, result.logs.map(({ message }) => message)], [{ timeoutMs: 60_000 }, ['x']]);
  await Promise.all([kernel.shutdown(), reactor.shutdown()]);
});

test('what is told of a run that goes well is told of one that fails, and of each of many', WATCHDOG, async () => {
  await using state = await runtime.createState({ n: 1 });
  const code = '$state.n = 2; if ($args.calls) await $ext.a.b(); if ($args.fails) throw new Error("x"); return 1';
  const options = { state, timeoutMs: 1e9, capabilities: ALL, extensions: { a: { b: () => 1 } } };
  const contexts = [{}, { calls: true }, { fails: true }, { calls: true, fails: true }].map((args) => ({ args }));
  const limited = { timeoutMs: 30_000 };
  for (const result of await runtime.runMany(code, contexts, options)) {
    assert.deepEqual([result.limited, typeof result.stateVersion], [limited, 'number'], result.status);
  }
  for (const { args } of contexts) {
    const told = await runtime.run(code, { ...options, args }).catch((error: unknown) => error as NexusError);
    assert.deepEqual([told.limited, typeof told.stateVersion], [limited, 'number'], JSON.stringify(args));
  }
  // 0 is no limit in the configuration; here there is one all the same
  assert.deepEqual((await runtime.run('return 1', { timeoutMs: 0 })).limited, limited);
  assert.equal((await runtime.run('return 1')).limited, undefined);
});

test('a time that no timer of Node can wait for is waited for as long as one can', WATCHDOG, async () => {
  const long = newRuntime({ startTimeoutMs: 2 ** 40, shutdownTimeoutMs: 2 ** 40, maxInstances: 1 });
  assert.equal((await long.run('return 1')).value, 1);
  await long.shutdown();
});

test('what onLog returns is waited for, and ends the run where it rejects', WATCHDOG, async () => {
  const late = async (): Promise<void> => {
    await new Promise((resolve) => setImmediate(resolve));
    throw new RangeError('the log is full');
  };
  await assert.rejects(runtime.run('$log.info("x"); return 1', { onLog: late }), { name: 'RangeError', message: 'the log is full' });
});

test('what is no NexusError is drawn as what it is', () => {
  const plain = new TypeError('no\u001b[31m', { cause: new Error('why') });
  assert.equal(formatError(plain), 'TypeError: no\ufffd[31m\n  caused by Error: why');
  assert.deepEqual([formatError('text'), formatError(null), formatError({ a: 1 })], ['text', 'null', '{ a: 1 }']);
});
