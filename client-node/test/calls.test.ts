/** Which calls of an execution are outstanding: every result lists them all, though the sidecar tells each once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Calls } from '../dist/esm/calls.js';
import { Suspended } from '../dist/esm/suspended.js';
import { Held, type Connection } from '../dist/esm/connection.js';
import { NexusError, type ExecutionResult, type Suspension } from '../dist/esm/index.js';

import { newRuntime, WATCHDOG } from './sidecar.js';

const CONTEXT = { capabilities: ['ext:a'] };

function argument({ args }: Suspension): number {
  return args[0] as number;
}

test('every result lists the calls that are outstanding after it in the order of making', WATCHDOG, async (t) => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  t.after(() => runtime.shutdown());
  const source = `const more = async (i) => (await $ext.a.b(i), await $ext.a.b(i + 10));
    return await Promise.all([1, 2, 3, 4].map(more))`;
  const first = await runtime.executeHandler(source, CONTEXT);
  let result = first;
  const waiting = [1, 2, 3, 4];
  for (const answered of [3, 1, 13, 4, 2, 14, 12, 11]) {
    assert.equal(result.status, 'suspended');
    assert.equal(argument(result.suspension as Suspension), waiting[0]);
    assert.deepEqual(result.suspensions.map(argument), waiting);
    const place = waiting.indexOf(answered);
    const { suspensionId } = result.suspensions[place] as Suspension;
    waiting.splice(place, 1);
    if (answered < 10) waiting.push(answered + 10);
    result = await runtime.resumeHandler(suspensionId, { success: true, value: answered });
  }
  assert.deepEqual(result.returnValue, [11, 12, 13, 14]);
  assert.deepEqual([result.suspension, result.suspensions], [undefined, []]);
  assert.deepEqual(first.suspensions.map(argument), [1, 2, 3, 4]);
});

test('lists are right when all are resumed at once, and each has its own segment', WATCHDOG, async (t) => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  t.after(() => runtime.shutdown());
  const source = 'return (await Promise.all(Array.from({ length: 60 }, (_, i) => $ext.a.b(i)))).length';
  for (let round = 0; round < 5; round++) {
    const first = await runtime.executeHandler(source, CONTEXT);
    const ids = first.suspensions.map(({ suspensionId }) => suspensionId);
    const order: number[] = [];
    const bySeq = new Map<number, [string, ExecutionResult]>();
    const resumed = ids.map(async (id) => {
      const result = await runtime.resumeHandler(id, { success: true });
      order.push(result.seq);
      bySeq.set(result.seq, [id, result]);
    });
    await Promise.all(resumed);
    assert.deepEqual(order, ids.map((_, index) => index + 1));
    let left = ids;
    for (const seq of order) {
      const [answered, result] = bySeq.get(seq) as [string, ExecutionResult];
      left = left.filter((id) => id !== answered);
      assert.deepEqual(result.suspensions.map(({ suspensionId }) => suspensionId), left, `segment ${seq}`);
    }
    assert.equal(bySeq.get(60)?.[1].returnValue, 60);
  }
});

test('a value that is refused leaves its call in the list, also with Buffers; an id that was used does not harm it', WATCHDOG, async (t) => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  t.after(() => runtime.shutdown());
  const context = { ...CONTEXT, state: Buffer.of(0x80), args: Buffer.of(0xc0), scope: Buffer.of(0x80) };
  const first = await runtime.executeHandler('return await Promise.all([$ext.a.b(1), $ext.a.b(2), $ext.a.b(3)])', context);
  const [one, two, three] = first.suspensions.map(({ suspensionId }) => suspensionId) as [string, string, string];
  for (const bytes of [[0x81, 0xc0, 1], [0xc1], [0xd4, 5, 0]]) {
    const refused = await runtime.resumeHandler(one, Buffer.from(bytes));
    assert.match(refused.error?.code ?? '', /^(INVALID_ARGUMENT|SERIALIZATION_ERROR)$/);
    assert.equal(refused.seq, 0);
  }
  const second = await runtime.resumeHandler(two, Buffer.of(2));
  assert.deepEqual(second.suspensions.map(({ suspensionId }) => suspensionId), [one, three]);
  assert.ok(Buffer.isBuffer(second.suspension?.args) && Buffer.isBuffer(second.logs));
  const used = await runtime.resumeHandler(two, Buffer.of(2));
  assert.equal(used.error?.code, 'SUSPENSION_ERROR');
  const both = await Promise.all([runtime.resumeHandler(one, Buffer.of(1)), runtime.resumeHandler(one, Buffer.of(1))]);
  assert.deepEqual(both.map(({ status }) => status).sort(), ['error', 'suspended']);
  const last = await runtime.resumeHandler(three, Buffer.of(3));
  assert.deepEqual(last.returnValue, Buffer.of(0x93, 1, 2, 3));
});

test('the segments of a run list what is outstanding too, and 2,000 calls made together take about what they take in turn', WATCHDOG, async (t) => {
  const runtime = newRuntime({ timeoutMs: 50_000 });
  t.after(() => runtime.shutdown());
  const extensions = { a: { b: async (value: unknown) => value } };
  const call = `$ext.a.b('x'.repeat(1000) + i)`;
  const together = `return (await Promise.all(Array.from({ length: N }, (_, i) => ${call}))).length`;
  const inTurn = `let n = 0; for (let i = 0; i < N; i++) if (await ${call}) n++; return n`;
  const timed = async (source: string, count: number): Promise<number> => {
    const began = performance.now();
    const { value, segments } = await runtime.run(source.replace('N', String(count)), { ...CONTEXT, extensions });
    const took = performance.now() - began;
    assert.deepEqual([value, segments.length], [count, count + 1]);
    return took;
  };
  const { segments } = await runtime.run(together.replace('N', '50'), { ...CONTEXT, extensions });
  assert.deepEqual(segments.map(({ suspensions }) => suspensions.length), Array.from({ length: 51 }, (_, index) => 50 - index));
  await timed(inTurn, 200);
  // The best of three each: other programs take the processors away at any time. Where it grows with the square, it is a hundred times.
  const best = async (source: string): Promise<number> => Math.min(await timed(source, 2000), await timed(source, 2000), await timed(source, 2000));
  const [many, each] = [await best(together), await best(inTurn)];
  assert.ok(many < 4 * each, `together ${many} ms, in turn ${each} ms`);
});

// ---- without a sidecar ----

function call(suspensionId: string): Suspension {
  return { suspensionId, extensionName: 'e', method: 'm', args: [] };
}

function result(seq: number, made: string[], status = 'suspended', code?: 'TIMEOUT' | 'SUSPENSION_ERROR' | 'INVALID_ARGUMENT'): ExecutionResult {
  const error = code === undefined ? {} : { error: new NexusError(code, 'expected by the test') };
  return { status, seq, suspensions: made.map(call), ...error } as unknown as ExecutionResult;
}

function listed({ seq, suspension, suspensions }: ExecutionResult): [number, string | undefined, string[]] {
  return [seq, suspension?.suspensionId, suspensions.map(({ suspensionId }) => suspensionId)];
}

/** A connection that can only end. */
function fakeConnection(serial: number, limits: Record<string, number> = {}): { connection: Connection; end: () => void } {
  const watchers: (() => void)[] = [];
  const connection = { serial, info: { limits }, onFailure: (watcher: () => void) => void watchers.push(watcher) };
  return { connection: connection as unknown as Connection, end: () => watchers.forEach((watcher) => watcher()) };
}

class Bench {
  readonly suspended = new Suspended();
  readonly fake;

  constructor(calls: string[], limits?: Record<string, number>) {
    this.fake = fakeConnection(1, limits);
    this.suspended.begun(this.fake.connection, {}, () => result(0, calls));
  }

  /** A resume, and how to answer it. */
  resume(id: string): { answered: Promise<ExecutionResult>; answer: (result: ExecutionResult) => void; fail: () => void } {
    let settle!: { resolve(value: ExecutionResult): void; reject(error: Error): void };
    let note!: (fields: Record<string, unknown>) => ExecutionResult | Held<ExecutionResult>;
    let next: ExecutionResult | undefined;
    const read = (): ExecutionResult => next as ExecutionResult;
    const answered = this.suspended.resumed(id, this.fake.connection, read, (given) => {
      note = given;
      return new Promise<ExecutionResult>((resolve, reject) => (settle = { resolve, reject }));
    });
    answered.catch(() => undefined);
    return {
      answered,
      answer: (result) => {
        next = result;
        const noted = note({});
        if (noted instanceof Held) noted.handOut(settle);
        else settle.resolve(noted);
      },
      fail: () => settle.reject(new Error('expected by the test')),
    };
  }
}

test('answers in any order are handed out by seq with their own lists', async () => {
  const bench = new Bench(['a', 'b', 'c', 'd']);
  const [a, b, c] = ['a', 'b', 'c'].map((id) => bench.resume(id)) as [ReturnType<Bench['resume']>, ReturnType<Bench['resume']>, ReturnType<Bench['resume']>];
  const order: number[] = [];
  for (const { answered } of [a, b, c]) void answered.then(({ seq }) => void order.push(seq));
  c.answer(result(3, ['e']));
  a.answer(result(2, []));
  await new Promise(setImmediate);
  assert.equal(order.length, 0);
  const d = bench.resume('d');
  void d.answered.then(({ seq }) => void order.push(seq));
  b.answer(result(1, []));
  d.answer(result(4, []));
  const lists = (await Promise.all([b.answered, a.answered, c.answered])).map(listed);
  assert.deepEqual(lists, [[1, 'a', ['a', 'c', 'd']], [2, 'c', ['c', 'd']], [3, 'd', ['d', 'e']]]);
  assert.deepEqual([order, listed(await d.answered)], [[1, 2, 3, 4], [4, 'e', ['e']]]);
});

test('a segment that never comes is not waited for, however its request ended', async () => {
  for (const end of ['fail', 'refused'] as const) {
    const bench = new Bench(['a', 'b', 'c']);
    const [a, b] = [bench.resume('a'), bench.resume('b')];
    b.answer(result(2, ['d']));
    if (end === 'fail') a.fail();
    else a.answer(result(0, [], 'error', 'INVALID_ARGUMENT'));
    assert.deepEqual(listed(await b.answered), [2, 'a', ['a', 'c', 'd']]);
  }
});

test('the end of an execution, of its sidecar, a cancel and an id that the sidecar has lost leave no list', async () => {
  const ends: Record<string, (bench: Bench) => void | Promise<unknown>> = {
    success: (bench) => bench.resume('a').answer(result(1, [], 'success')),
    timeout: (bench) => bench.resume('a').answer(result(1, [], 'error', 'TIMEOUT')),
    cancel: (bench) => bench.suspended.cancelled('b', bench.fake.connection),
    lost: (bench) => bench.resume('a').answer(result(0, [], 'error', 'SUSPENSION_ERROR')),
  };
  for (const [name, end] of Object.entries(ends)) {
    const bench = new Bench(['a', 'b']);
    await end(bench);
    // What is not known is the sidecar's to judge: its answer is handed on as it is.
    const later = bench.resume('b');
    later.answer(result(7, ['x']));
    assert.deepEqual(listed(await later.answered).slice(0, 1), [7], name);
    assert.deepEqual((await later.answered).suspensions.map(({ suspensionId }) => suspensionId), ['x'], name);
  }
  const bench = new Bench(['a', 'b']);
  bench.fake.end();
  const other = fakeConnection(2).connection;
  for (let attempt = 0; attempt < 2; attempt++) {
    assert.throws(() => bench.suspended.cancelled('a', other), (error: NexusError) => error.context?.['reason'] === 'sidecar-gone');
  }
});

test('a list that the sidecar has given up is given up here too', async () => {
  const bench = new Bench(['a', 'b'], { suspensionTimeoutMs: 20 });
  const deadline = performance.now() + 60_000;
  for (let seq = 1; ; seq++) {
    await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** seq));
    const resumed = bench.resume(seq === 1 ? 'b' : `x${seq - 1}`);
    resumed.answer(result(seq, [`x${seq}`]));
    const { suspensions } = await resumed.answered;
    if (suspensions.length === 1) break;
    assert.ok(performance.now() < deadline, 'the list is still kept');
  }
});

test('a list is made when it is looked at and stays what it was', () => {
  const calls = new Calls<unknown[]>();
  const results = Array.from({ length: 2000 }, (_, seq) => result(seq, seq === 0 ? Array.from({ length: 2000 }, (_, n) => `${n}`) : []));
  for (const [index, segment] of results.entries()) calls.segment(segment, index === 0 ? undefined : `${index - 1}`);
  assert.equal(calls.oldest?.suspensionId, '1999');
  const isMade = (segment: ExecutionResult): boolean => Object.getOwnPropertyDescriptor(segment, 'suspensions')?.get === undefined;
  assert.equal(results.filter(isMade).length, 1);
  for (const seq of [0, 1, 1000, 1999]) {
    const { suspensions } = results[seq] as ExecutionResult;
    assert.equal(suspensions.length, 2000 - seq);
    assert.equal(suspensions[0]?.suspensionId, `${seq}`);
    assert.equal(results[seq]?.suspensions, suspensions);
  }
  assert.equal(JSON.parse(JSON.stringify(results[5])).suspensions.length, 1995);
  const segment = results[6] as ExecutionResult;
  segment.suspensions = [];
  assert.deepEqual(segment.suspensions, []);
});
