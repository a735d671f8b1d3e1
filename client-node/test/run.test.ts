/** The run loop against the real sidecar. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { inspect } from 'node:util';

import { currentCall, encoded, encodePayload, formatError, NexusError, type CurrentCall, type Segment } from '@nexus/sidecar';

import { ALL, deferred, ended, failure, newRuntime, WATCHDOG } from './sidecar.js';

const runtime = newRuntime({ maxInstances: 4 });
after(() => runtime.shutdown());
const capabilities = ALL;

test('a run without extension calls gives its value and its effects', WATCHDOG, async () => {
  const result = await runtime.run('$state.a = 1; $emit("e", 2); return $args.x', { args: { x: 'v' }, capabilities });
  assert.equal(result.value, 'v');
  assert.deepEqual(result.stateMutations, [{ op: 'set', key: 'a', value: 1 }]);
  assert.equal(result.events[0]?.payload, 2);
  assert.equal(result.segments.length, 1);
  assert.equal(result.segments[0]?.status, 'success');
});

test('a segment is delivered before the extension that it waits for is called', WATCHDOG, async () => {
  const order: string[] = [];
  const result = await runtime.run(
    '$state.loading = true; const user = await $ext.http.get("/u"); $state.user = user; $state.loading = false; return user.name',
    {
      capabilities,
      onSegment: ({ seq, stateMutations }) => order.push(`${seq}:${stateMutations.map(({ key }) => key).join()}`),
      extensions: {
        http: {
          get: async (path: string) => {
            order.push(`get ${path}`);
            return { name: 'Ada' };
          },
        },
      },
    },
  );
  assert.deepEqual(order, ['0:loading', 'get /u', '1:user,loading']);
  assert.equal(result.value, 'Ada');
  assert.deepEqual(result.stateMutations.map(({ key }) => key), ['loading', 'user', 'loading']);
});

test('calls that the handler makes together run together and may end in any order', WATCHDOG, async () => {
  const gates = { a: deferred<string>(), b: deferred<string>(), c: deferred<string>() };
  let started = 0;
  const get = (name: keyof typeof gates): Promise<string> => {
    if (++started === 3) {
      gates.c.resolve('C');
      gates.a.resolve('A');
      setTimeout(() => gates.b.resolve('B'), 20);
    }
    return gates[name].promise;
  };
  const seqs: number[] = [];
  const result = await runtime.run(
    'return await Promise.all(["a", "b", "c"].map(async (n) => { const v = await $ext.x.get(n); $state[n] = v; return v }))',
    { capabilities, extensions: { x: { get } }, onSegment: ({ seq }) => seqs.push(seq) },
  );
  assert.deepEqual(result.value, ['A', 'B', 'C']);
  assert.deepEqual(seqs, [0, 1, 2, 3]);
  assert.equal(result.stateMutations.length, 3);
});

test('a call may be awaited after it was made', WATCHDOG, async () => {
  const result = await runtime.run('const a = $ext.math.double(1); const b = $ext.math.double(2); return (await b) - (await a)', {
    capabilities,
    extensions: { math: { double: (n: number) => 2 * n } },
  });
  assert.equal(result.value, 2);
});

test('what an extension throws can be caught in the handler', WATCHDOG, async () => {
  const extensions = {
    x: {
      rejects: async () => {
        throw Object.assign(new RangeError('too far'), { code: 'E_FAR' });
      },
      throws: () => {
        throw 'text';
      },
      unsendable: () => 2n ** 70n,
      cyclic: () => {
        const cycle: unknown[] = [];
        cycle.push(cycle);
        return cycle;
      },
    },
  };
  const code = (method: string) => `try { await $ext.x.${method}() } catch (e) { return [e.name, e.message, e.code ?? null] }`;
  const value = async (method: string) => (await runtime.run(code(method), { capabilities, extensions })).value;
  assert.deepEqual(await value('rejects'), ['RangeError', 'too far', 'E_FAR']);
  assert.deepEqual(await value('throws'), ['Error', 'text', null]);
  assert.equal(((await value('unsendable')) as string[])[2], 'SERIALIZATION_ERROR');
  assert.equal(((await value('cyclic')) as string[])[2], 'SERIALIZATION_ERROR');
  const error = await failure(runtime.run('await $ext.x.rejects()', { capabilities, extensions }));
  assert.match(error.message, /too far/);
});

test('a handler reaches own properties of the extensions only', WATCHDOG, async () => {
  const reached: string[] = [];
  class Service {
    own = (): number => 1;
    method(): void {
      reached.push('prototype method');
    }
  }
  const extensions = { svc: new Service() as never, fn: { ok: () => 1, data: 5 as never } };
  const attempts = [
    '$ext.nothing.get()', '$ext.constructor.keys({})', '$ext.toString.call()', '$ext["__proto__"].toString()', '$ext.hasOwnProperty.call()',
    '$ext.fn.constructor("return 1")', '$ext.fn.toString()', '$ext.fn["__proto__"]()', '$ext.fn.data()', '$ext.svc.method()', '$ext.fn.missing()',
  ];
  for (const attempt of attempts) {
    const result = await runtime.run(`try { await ${attempt}; return 'reached' } catch (e) { return e.code ?? e.name }`, { capabilities, extensions });
    const expected = ['EXTENSION_NOT_FOUND', 'METHOD_NOT_FOUND', 'TypeError'];
    assert.ok(expected.includes(result.value as string), `${attempt}: ${String(result.value)}`);
  }
  assert.deepEqual(reached, []);
});

test('the handler sees the list of extensions', WATCHDOG, async () => {
  const result = await runtime.run('return [$ext.list(), $ext.exists("http"), $ext.exists("no"), $ext.methods("http")]', {
    capabilities,
    extensions: { http: { get: () => 1, post: () => 2 } },
  });
  assert.deepEqual(result.value, [['http'], true, false, ['get', 'post']]);
});

test('a handler that ends with calls outstanding is done; late answers are nobody\'s business', WATCHDOG, async () => {
  const late = deferred<number>();
  const result = await runtime.run('return await Promise.race([$ext.x.slow(), $ext.x.fast()])', {
    capabilities,
    extensions: { x: { slow: () => late.promise, fast: async () => 'fast' } },
  });
  assert.equal(result.value, 'fast');
  late.reject(new Error('nobody listens'));
  await new Promise((resolve) => setImmediate(resolve));
  await runtime.ping();
});

test('a handler that fails throws a NexusError', WATCHDOG, async () => {
  const segments: Segment[] = [];
  const error = await failure(
    runtime.run('\n$state.a = 1; throw new TypeError("bad")', { capabilities, onSegment: (segment) => segments.push(segment) }),
  );
  assert.equal(error.code, 'EXECUTION_ERROR');
  assert.equal(error.errorName, 'TypeError');
  assert.equal(error.location?.line, 2);
  assert.deepEqual(segments[0]?.stateMutations, [{ op: 'set', key: 'a', value: 1 }]);
  assert.equal((await failure(runtime.run('for (;;);', { timeoutMs: 50 }))).code, 'TIMEOUT');
  assert.equal((await failure(runtime.run('const = 1'))).code, 'COMPILATION_ERROR');
});

test('what onSegment throws or rejects with ends the run and is thrown by it', WATCHDOG, async () => {
  const code = '$state.a = 1; await $ext.x.y(); return 1';
  let calls = 0;
  const extensions = { x: { y: () => ++calls } };
  const oops = new Error('oops');
  const sync = runtime.run(code, { capabilities, extensions, onSegment: () => { throw oops; } });
  await assert.rejects(sync, (error) => error === oops);
  assert.equal(calls, 0);
  const onLast = async ({ status }: Segment): Promise<void> => {
    if (status === 'success') throw oops;
  };
  await assert.rejects(runtime.run(code, { capabilities, extensions, onSegment: onLast }), (error) => error === oops);
});

test('an abort before the start, while running and while suspended rejects with CANCELLED and its reason', WATCHDOG, async () => {
  const reason = new Error('user went away');
  const isAbort = (error: NexusError): boolean => error.code === 'CANCELLED' && error.cause === reason;

  assert.ok(isAbort(await failure(runtime.run('return 1', { signal: AbortSignal.abort(reason) }))));

  const running = new AbortController();
  setTimeout(() => running.abort(reason), 50);
  assert.ok(isAbort(await failure(runtime.run('for (;;);', { signal: running.signal }))));

  const suspended = new AbortController();
  const { resolve, promise } = deferred<void>();
  const seen: string[] = [];
  const run = runtime.run('$state.a = 1; await $ext.x.wait(); $state.b = 1', {
    capabilities,
    signal: suspended.signal,
    extensions: { x: { wait: () => { setImmediate(() => suspended.abort(reason)); return promise; } } },
    onSegment: ({ stateMutations }) => seen.push(...stateMutations.map(({ key }) => key)),
  });
  assert.ok(isAbort(await failure(run)));
  resolve();
  assert.deepEqual(seen, ['a']);
  await untilStats(({ suspendedInstances }) => suspendedInstances === 0);
});

async function untilStats(holds: (stats: Awaited<ReturnType<typeof runtime.getStats>>) => boolean): Promise<void> {
  while (!holds(await runtime.getStats())) await new Promise((resolve) => setTimeout(resolve, 10));
}

test('an abort after the end changes nothing and leaves no listener', WATCHDOG, async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const counted = new Proxy(signal, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (key === 'addEventListener') listeners++;
      if (key === 'removeEventListener') listeners--;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  assert.equal((await runtime.run('return 7', { signal: counted })).value, 7);
  assert.equal(listeners, 0);
});

test('a run that is suspended when the sidecar is killed rejects at once', WATCHDOG, async () => {
  const own = newRuntime();
  const { pid } = await own.start();
  const run = own.run('await $ext.x.never()', {
    capabilities,
    extensions: { x: { never: () => { process.kill(pid, 'SIGKILL'); return new Promise(() => undefined); } } },
  });
  const error = await failure(run);
  assert.equal(error.code, 'SIDECAR_GONE');
  assert.equal(error.context?.['signal'], 'SIGKILL');
  await ended(pid);
  await own.shutdown();
});

test('many runs with calls at the same time keep their own values', WATCHDOG, async () => {
  const extensions = { x: { echo: async (value: unknown) => value } };
  const runs = Array.from({ length: 100 }, (_, index) =>
    runtime.run('let sum = 0; for (let i = 0; i < 3; i++) sum += await $ext.x.echo($args + i); return sum', {
      args: index,
      capabilities,
      extensions,
    }),
  );
  const values = (await Promise.all(runs)).map(({ value }) => value);
  assert.deepEqual(values, Array.from({ length: 100 }, (_, index) => 3 * index + 3));
});

test('an answer that a handler has no room for ends its execution with MEMORY_LIMIT, one that no frame has room for fails in it', WATCHDOG, async () => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  const sparse: number[] = [];
  sparse[2 ** 29] = 1;
  const extensions = { a: { large: () => Buffer.alloc(40 << 20), endless: () => sparse, error: () => { throw new Error('x'.repeat(40 << 20)); } } };
  const run = (source: string) => runtime.run(source, { capabilities: ['ext:a'], extensions });
  for (const method of ['large', 'error']) {
    const error = await failure(run(`return await $ext.a.${method}()`));
    assert.deepEqual([error.code, error.retryable], ['MEMORY_LIMIT', false], method);
    const together = await failure(run(`return await Promise.all([$ext.a.${method}(), $ext.a.${method}(), $ext.a.${method}()])`));
    assert.equal(together.code, 'MEMORY_LIMIT', method);
  }
  const caught = await run('try { await $ext.a.endless() } catch (e) { return e.message }');
  assert.match(String(caught.value), /larger than a request may be/);
  const first = await runtime.executeHandler('return await Promise.all([$ext.a.b(), $ext.a.b()])', { capabilities: ['ext:a'] });
  const ids = first.suspensions.map(({ suspensionId }) => suspensionId) as [string, string];
  const ended = await runtime.resumeHandler(ids[0], { success: true, value: new Uint8Array(40 << 20) });
  assert.deepEqual([ended.status, ended.seq, ended.error?.code, ended.error?.retryable], ['error', 1, 'MEMORY_LIMIT', false]);
  assert.equal((await runtime.resumeHandler(ids[1], { success: true })).error?.code, 'SUSPENSION_ERROR');
  await runtime.shutdown();
});

test('a call that is not answered in time fails in the handler, which may go on', WATCHDOG, async (t) => {
  const impatient = newRuntime({ suspensionTimeoutMs: 60 });
  t.after(() => impatient.shutdown());
  const silent = (): Promise<never> => new Promise(() => undefined);
  const said = '$ext.x.silent() was not answered within suspensionTimeoutMs (60 ms)';
  const caught = await impatient.run(
    `$state.begun = true;
     try { await $ext.x.silent() } catch (e) { return [e.message, e.code, e.extension, e.method, await $ext.x.quick(7)] }`,
    { capabilities, extensions: { x: { silent, quick: (n: number) => n } } },
  );
  assert.deepEqual(caught.value, [said, 'TIMEOUT', 'x', 'silent', 7]);
  assert.deepEqual(caught.stateMutations, [{ op: 'set', key: 'begun', value: true }]);
  const error = await failure(impatient.run('return await $ext.x.silent()', { capabilities, extensions: { x: { silent } } }));
  assert.deepEqual([error.code, error.message, error.location?.column], ['EXECUTION_ERROR', said, 21]);
  const stack = await failure(impatient.run('const r = $ext.x.silent(); return r', { capabilities, extensions: { x: { silent } } }));
  assert.deepEqual([stack.code, stack.message], ['EXECUTION_ERROR', said]);
  assert.equal((await impatient.getStats()).suspendedInstances, 0);
});

test('of many calls each is late by itself, and a late answer changes nothing', WATCHDOG, async (t) => {
  const impatient = newRuntime({ suspensionTimeoutMs: 300 });
  t.after(() => impatient.shutdown());
  const gates = Array.from({ length: 40 }, () => deferred<number>());
  const slow = (n: number): Promise<number> | number => (n % 2 === 0 ? n : (gates[n]?.promise as Promise<number>));
  const source = `return (await Promise.allSettled(Array.from({ length: 40 }, (_, n) => $ext.x.slow(n))))
    .map((r) => r.value ?? r.reason.code)`;
  const { value } = await impatient.run(source, { capabilities, extensions: { x: { slow } } });
  assert.deepEqual(value, gates.map((_, n) => (n % 2 === 0 ? n : 'TIMEOUT')));
  for (const [n, gate] of gates.entries()) gate.resolve(n);
  assert.equal((await impatient.run('return 1')).value, 1);
});

test('an extension that is handed over is granted, a list of capabilities is exact', WATCHDOG, async () => {
  const extensions = { http: { get: () => 1 }, mail: { send: () => 2 } };
  const source = 'return [await $ext.http.get(), await $ext.mail.send()]';
  assert.deepEqual((await runtime.run(source, { extensions })).value, [1, 2]);
  const stack = 'const a = $ext.http.get(); return a';
  assert.equal((await runtime.run(stack, { extensions })).value, 1);
  for (const capabilities of [[], ['ext:http']]) {
    const error = await failure(runtime.run(source, { extensions, capabilities }));
    assert.deepEqual([error.code, error.capability], ['PERMISSION_DENIED', capabilities.length === 0 ? 'ext:http.get' : 'ext:mail.send']);
  }
  // nothing else is
  const denied = await failure(runtime.run('$state.a = 1', { extensions }));
  assert.deepEqual([denied.code, denied.capability], ['PERMISSION_DENIED', 'state:write:a']);
});

test('what run cannot use is refused by name, with what was probably meant', WATCHDOG, async () => {
  class Mail {
    send(): void {}
  }
  const get = (): number => 1;
  const refused: [object, RegExp][] = [
    [{ capabilites: [] }, /unknown option of `run` `capabilites`; did you mean `capabilities`\?/],
    [{ onsegment: get }, /`onsegment`; did you mean `onSegment`\?/],
    [{ extensionRegistry: {} }, /unknown option of `run` `extensionRegistry`/],
    [{ foo: 1 }, /unknown option of `run` `foo`$/],
    [{ limits: { maxHostCall: 1 } }, /unknown limit `maxHostCall`; did you mean `maxHostCalls`\?/],
    [{ extensions: { get } }, /extension `get` is a function; an extension is an object of methods: \{ get: \{ get: /],
    [{ extensions: { mail: new Mail() } }, /extension `mail` has no methods of its own .*wrap them/],
    [{ extensions: { mail: {} } }, /extension `mail` has no methods of its own/],
    [{ extensions: { mail: 'x' } }, /extension `mail` is not an object of methods/],
    [{ onExtensionError: 1 }, /`onExtensionError` is not a function/],
    [{ labels: 'x' }, /`labels` is not an object/],
  ];
  for (const [options, message] of refused) {
    const error = await failure(runtime.run('return 1', options as object));
    assert.equal(error.code, 'INVALID_ARGUMENT', String(message));
    assert.match(error.message, message);
  }
  assert.equal((await runtime.run('return 1', { foo: undefined } as object)).value, 1);
  await assert.rejects(async () => runtime.executeHandler('return 1', { statee: {} } as object), /field of the context `statee`; did you mean `state`\?/);
  await assert.rejects(async () => runtime.executeHandler('return 1', {}, 100, { singal: undefined, sig: 1 } as object), /unknown option `sig`/);
  await assert.rejects(async () => runtime.precompileHandler('return 1', { mode: 'await' } as object), /unknown option `mode`/);
  assert.throws(() => newRuntime({ maxInstance: 1 } as object), /unknown configuration key `maxInstance`; did you mean `maxInstances`\?/);
});

test('a failed run tells what had happened, what the extension threw and who awaited it', WATCHDOG, async () => {
  const own = new RangeError('row 7 is locked');
  const extensions = { db: { ok: () => 1, write: () => Promise.reject(own) } };
  async function caller(): Promise<unknown> {
    return await runtime.run(
      `$log('begun'); $state.a = 1; $emit('e', 2); $view.focus('v'); await $ext.db.ok(); $state.b = 2; await $ext.db.write(); return 1`,
      { extensions, capabilities },
    );
  }
  const error = await failure(caller());
  assert.deepEqual([error.code, error.message, error.cause], ['EXECUTION_ERROR', 'row 7 is locked', own]);
  assert.deepEqual(error.segments?.map(({ seq, status }) => [seq, status]), [[0, 'suspended'], [1, 'suspended'], [2, 'error']]);
  assert.deepEqual(error.stateMutations?.map(({ key }) => key), ['a', 'b']);
  assert.deepEqual([error.events?.length, error.viewCommands?.length, error.logs?.length], [1, 1, 1]);
  assert.equal(error.metrics?.hostCalls['state.set'] ?? error.metrics?.hostCalls['stateSet'], error.segments?.at(-1)?.metrics.hostCalls['state.set']);
  assert.match(error.stack ?? '', /at async caller .*run\.test/);
  assert.doesNotMatch(inspect(error), /stateMutations|segments/);

  // a handler's own error is its own, and one that it catches is over
  const caught = await failure(runtime.run(`try { await $ext.db.write() } catch {} throw new Error('row 7 is locked')`, { extensions }));
  assert.equal('cause' in caught, false);
  const wrapped = await failure(runtime.run(`try { await $ext.db.write() } catch (e) { throw new Error('no', { cause: e }) }`, { extensions }));
  assert.deepEqual([wrapped.message, (wrapped.cause as Error).message], ['no', 'row 7 is locked']);
  const atOnce = await failure(runtime.run('let a = ;'));
  assert.deepEqual([atOnce.code, atOnce.segments?.length ?? 0, atOnce.stateMutations], ['COMPILATION_ERROR', atOnce.segments?.length ?? 0, []]);
});

test('onExtensionError decides what the handler sees of an error', WATCHDOG, async () => {
  const own = Object.assign(new Error('password=hunter2 in 10.0.0.7'), { code: 'E_SECRET' });
  const extensions = { db: { read: () => Promise.reject(own) } };
  const source = 'try { await $ext.db.read() } catch (e) { return [e.name, e.message, e.code ?? null] }';
  const seen: unknown[] = [];
  const chosen: [(() => unknown) | undefined, unknown[]][] = [
    [undefined, ['Error', 'password=hunter2 in 10.0.0.7', 'E_SECRET']],
    [() => undefined, ['Error', 'password=hunter2 in 10.0.0.7', 'E_SECRET']],
    [() => new TypeError('the database said no'), ['TypeError', 'the database said no', null]],
    [async () => ({ message: 'no', code: 'E_DB' }), ['Error', 'no', 'E_DB']],
    [() => { throw new Error('not even that'); }, ['Error', 'not even that', null]],
  ];
  for (const [choose, expected] of chosen) {
    const options = choose === undefined ? {} : { onExtensionError: (error: unknown, call: CurrentCall) => (seen.push(error, call.method), choose()) };
    assert.deepEqual((await runtime.run(source, { extensions, ...options })).value, expected);
  }
  assert.deepEqual(seen.slice(0, 2), [own, 'read']);
  const error = await failure(runtime.run('await $ext.db.read()', { extensions, onExtensionError: () => new Error('no') }));
  assert.deepEqual([error.message, error.cause], ['no', own]);
});

test('an extension can ask about its call, and its signal aborts when nobody waits any more', WATCHDOG, async () => {
  assert.throws(currentCall, { code: 'INVALID_ARGUMENT' });
  const labels = { tenant: 't1' };
  const asked: CurrentCall[] = [];
  const ask = async (): Promise<unknown> => {
    const at = currentCall();
    await new Promise(setImmediate);
    asked.push(currentCall());
    return at === currentCall();
  };
  const before = Date.now();
  const result = await runtime.run('return await Promise.all([$ext.x.ask(), $ext.x.ask()])', {
    extensions: { x: { ask } }, handlerName: 'h', panelId: 'p', labels,
  });
  assert.deepEqual(result.value, [true, true]);
  const [first, second] = asked as [CurrentCall, CurrentCall];
  assert.deepEqual([first.extensionName, first.method, first.handlerName, first.panelId, first.labels], ['x', 'ask', 'h', 'p', labels]);
  assert.ok(first.suspensionId !== second.suspensionId && first.deadline >= before + 30_000);
  assert.equal(first.signal.aborted, false);
  await runtime.run('await $ext.x.ask()', { extensions: { x: { ask } } });
  const ids = asked.map(({ executionId }) => executionId);
  assert.ok(ids[0] === ids[1] && ids[1] !== ids[2] && ids.every((id) => id.length > 0), String(ids));

  // over although it is not answered: the race is won, the run is aborted, the handler fails
  const reasons: unknown[] = [];
  const wait = (): Promise<never> => new Promise((_, reject) => {
    const { signal } = currentCall();
    signal.addEventListener('abort', () => (reasons.push((signal.reason as NexusError).code), reject(signal.reason as Error)));
  });
  const extensions = { x: { wait, quick: () => 1 } };
  await runtime.run('return await Promise.race([$ext.x.wait(), $ext.x.quick()])', { extensions });
  await failure(runtime.run('await Promise.race([$ext.x.wait(), $ext.x.quick()]); throw new Error("no")', { extensions }));
  const controller = new AbortController();
  const aborted = failure(runtime.run('return await $ext.x.wait()', {
    extensions: { x: { wait: () => (setImmediate(() => controller.abort()), wait()) } }, signal: controller.signal,
  }));
  assert.deepEqual([(await aborted).name, (await aborted).code], ['AbortError', 'CANCELLED']);
  assert.deepEqual(reasons, ['CANCELLED', 'EXECUTION_ERROR', 'CANCELLED']);
});

test('an error can be drawn with its lines, and steers no terminal', WATCHDOG, async () => {
  const source = `const a = 1;\n\tthrow new RangeError('no \\x1b[2J way')\nlater();`;
  const error = await failure(runtime.run(source));
  assert.equal(formatError(error, { source, handlerName: 'rule.js' }), [
    'EXECUTION_ERROR: RangeError: no \ufffd[2J way',
    '  at rule.js:2:12',
    '  1 | const a = 1;',
    `> 2 | \tthrow new RangeError('no \\x1b[2J way')`,
    '    | \t          ^',
    '  3 | later();',
  ].join('\n'));
  assert.match(formatError(error, { source, color: true }), /\u001b\[31mEXECUTION_ERROR/);
  assert.equal(formatError(new NexusError('OVERLOADED', 'busy')), 'OVERLOADED: busy');
  const long = await failure(runtime.run(`${'x;'.repeat(500).replaceAll('x', '0')}null.x`));
  assert.ok(formatError(long, { source: `${'0;'.repeat(500)}null.x` }).length < 500);
});

test('a Buffer is bytes wherever a value is, and MessagePack where that is said', WATCHDOG, async () => {
  const bytes = Buffer.from([0x93, 1, 2, 3]);
  const kind = (name: string): string => `${name} instanceof Uint8Array ? [...${name}] : ${name}`;
  const source = `return [${kind('$args')}, ${kind('$scope')}, ${kind('$state.s')}, ${kind('await $ext.x.get()')}]`;
  const values = await runtime.run(source, { args: bytes, scope: encoded(encodePayload({ a: 1 })), state: { s: bytes }, capabilities, extensions: { x: { get: () => bytes } } });
  assert.deepEqual(values.value, [[0x93, 1, 2, 3], { a: 1 }, [0x93, 1, 2, 3], [0x93, 1, 2, 3]]);
  const said = await runtime.run(source, { args: encoded(bytes), state: encoded(encodePayload({ s: 's' })), capabilities, extensions: { x: { get: () => encoded(bytes) } } });
  assert.deepEqual(said.value, [[1, 2, 3], {}, 's', [1, 2, 3]]);
  const error = await failure(runtime.run('return 1', { state: bytes }));
  assert.deepEqual([error.code, /`encoded\(buffer\)`/.test(error.message)], ['INVALID_ARGUMENT', true]);
  // one segment: a state in a Buffer decides
  const one = await runtime.executeHandler('return $args instanceof Uint8Array', { args: bytes });
  assert.equal(one.returnValue, true);
  const first = await runtime.executeHandler('return await $ext.x.get()', { capabilities });
  const resumed = await runtime.resumeHandler(first.suspension?.suspensionId as string, { success: true, value: bytes });
  assert.deepEqual(resumed.returnValue, new Uint8Array(bytes));
  await assert.rejects(async () => encoded('x' as never), { code: 'INVALID_ARGUMENT' });
});

test('an instance of a class travels by its toJSON, and what would be lost is named where that is asked for', WATCHDOG, async () => {
  class Money {
    constructor(readonly cents: number) {}
    toJSON(): string {
      return `${this.cents / 100} EUR`;
    }
  }
  class Point {
    x = 1;
  }
  const sent = await runtime.run('return [$args, $state.url, await $ext.x.get()]', {
    args: [new Money(150), new Point()], state: { url: new URL('http://a/b') }, capabilities, extensions: { x: { get: () => new Money(5) } },
  });
  assert.deepEqual(sent.value, [['1.5 EUR', { x: 1 }], 'http://a/b', '0.05 EUR']);
  const cycle = await failure(runtime.run('return 1', { args: Object.create({ toJSON() { return this; } }) as object }));
  assert.equal(cycle.code, 'SERIALIZATION_ERROR');

  const lost: [object, RegExp][] = [
    [{ args: { a: [1, { b: undefined }] } }, /^`args\.a\[1\]\.b` is undefined, and would become null$/],
    [{ args: { 'a-b': () => 1 } }, /^`args\["a-b"\]` is a function, and would be left out$/],
    [{ args: Symbol('x') }, /^`args` is a symbol/],
    [{ scope: { p: new Point() } }, /^`scope\.p` is a Point, and would become a plain object$/],
    [{ state: { m: new Map() } }, /^`state\.m` is a Map, and would become a plain object$/],
    [{ args: new Set() }, /^`args` is a Set, and would become a plain array$/],
    [{ args: [new Float64Array(1)] }, /^`args\[0\]` is a Float64Array, and would become a plain Uint8Array$/],
    [{ args: new Date(NaN) }, /^`args` is an invalid Date$/],
    [{ args: 'a\ud800' }, /^`args` has an unpaired surrogate/],
    [{ args: { [Symbol.iterator]: 1 } }, /^`args` has keys that are symbols/],
  ];
  for (const [context, message] of lost) {
    const error = await failure(runtime.run('return 1', { ...context, lossy: 'throw' }));
    assert.equal(error.code, 'SERIALIZATION_ERROR');
    assert.match(error.message, message);
    await assert.rejects(async () => runtime.executeHandler('return 1', { ...context, lossy: 'throw' }), { message: error.message });
    // an invalid Date is refused in any case
    await runtime.run('return 1', context).catch((error: NexusError) => assert.equal(error.message, 'an invalid Date cannot be sent'));
  }
  const kept = { a: [1, -0, 2n ** 63n, 'ü', null, true, new Date(0), Buffer.from('x'), new Money(1), Object.create(null) as object] };
  assert.equal((await runtime.run('return 1', { args: kept, lossy: 'throw' })).value, 1);
  const called = await failure(runtime.run('await $ext.x.get()', { lossy: 'throw', extensions: { x: { get: () => ({ f: get }) } } }));
  function get(): void {}
  assert.deepEqual([called.message, called.code], ['`x.get().f` is a function, and would be left out', 'SERIALIZATION_ERROR']);
  assert.equal((await failure(runtime.run('return 1', { lossy: 'maybe' as 'drop' }))).code, 'INVALID_ARGUMENT');
});

test('a limit that is wider than the sidecar\'s own is told, and one that is not is not', WATCHDOG, async () => {
  const narrow = newRuntime({ timeoutMs: 4000, maxEvents: 7 });
  const wide = { timeoutMs: 20_000, limits: { maxEvents: 8, maxHostCalls: 5 } };
  const result = await narrow.run('await $ext.a.b(); return 1', { ...wide, extensions: { a: { b: () => 1 } } });
  assert.deepEqual([result.limited, ...result.segments.map(({ limited }) => limited)], [{ timeoutMs: 4000, maxEvents: 7 }, { timeoutMs: 4000, maxEvents: 7 }, undefined]);
  assert.deepEqual((await narrow.executeHandler('return 1', { limits: wide.limits })).limited, { maxEvents: 7 });
  const obeyed = await narrow.run('return 1', { timeoutMs: 4000, limits: { maxEvents: 7 } });
  assert.ok(!('limited' in obeyed) && !('limited' in (await narrow.run('return 1'))));
  const failed = await failure(narrow.run('throw new Error("no")', wide));
  assert.deepEqual(failed.segments?.[0]?.limited, { timeoutMs: 4000, maxEvents: 7 });
  await narrow.shutdown();
});
