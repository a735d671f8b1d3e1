/** The table of tests/conformance, which the Rust client runs too. Its README says what the keys mean. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';

import { formatError, NexusError, type Extensions, type LogRecord, type RunOptions, type Segment } from '@nexus/sidecar';

import { failure, newRuntime, WATCHDOG } from './sidecar.js';

interface Answer {
  value?: unknown;
  error?: { message: string; name?: string; code?: string };
  echo?: true;
}

interface Case {
  name: string;
  source: string;
  state?: unknown;
  args?: unknown;
  scope?: unknown;
  seed?: number;
  timeoutMs?: number;
  limits?: Record<string, number>;
  grants?: string[];
  strict?: boolean;
  extensions?: Record<string, Record<string, Answer[]>>;
  order?: string[];
  repeat?: number;
  many?: { args?: unknown; grants?: string[]; limits?: Record<string, number>; expect: Expectation }[];
  cancel?: true;
  binary?: string;
  check?: { capabilities?: string[]; suspendMode?: string; error?: string };
  expect?: Expectation;
}

interface Expectation {
  value?: unknown;
  anyValue?: true;
  depth?: number;
  error?: {
    code: string;
    name?: string;
    message?: string;
    messageContains?: string;
    capability?: string;
    line?: number;
    retryable?: boolean;
    context?: Record<string, unknown>;
  };
  stateMutations?: unknown[];
  events?: unknown[];
  eventCount?: number;
  viewCommands?: unknown[];
  logs?: [string, string][];
  limited?: Record<string, number>;
  calls?: [string, unknown[]][];
  segments?: string[][];
  report?: string;
}

const cases = JSON.parse(readFileSync(new URL('../../tests/conformance/cases.json', import.meta.url), 'utf8')) as Case[];
const runtime = newRuntime({ debug: true });
let ran = 0;
after(async () => {
  await runtime.shutdown();
  assert.equal(ran, cases.length);
});

/** JSON with tags to values. */
function untag(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(untag);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  const [tag, content] = entries.length === 1 ? (entries[0] as [string, never]) : ['', undefined];
  if (tag === '$bigint') return BigInt(content as never);
  if (tag === '$bytes') return new Uint8Array(Buffer.from(content as never, 'hex'));
  if (tag === '$date') return new Date(content as never);
  if (tag === '$number') return Number(content);
  const object = {};
  for (const [key, item] of entries) {
    Object.defineProperty(object, key, { value: untag(item), enumerable: true, configurable: true, writable: true });
  }
  return object;
}

/** The scripted extensions of one run, and what happened in it. */
class Script {
  readonly segments: Segment[] = [];
  readonly calls: [string, unknown[]][] = [];
  readonly #order: string[] | undefined;
  #waiting: { turn: number; go(): void }[] = [];

  constructor(order: string[] | undefined) {
    this.#order = order;
  }

  extensions(scripted: NonNullable<Case['extensions']>): Extensions {
    return Object.fromEntries(
      Object.entries(scripted).map(([name, methods]) => [
        name,
        Object.fromEntries(
          Object.entries(methods).map(([method, answers]) => {
            const left = [...answers];
            return [method, (...args: unknown[]) => this.#answer(`${name}.${method}`, args, left.shift())];
          }),
        ),
      ]),
    );
  }

  readonly onSegment = (segment: Segment): void => {
    this.segments.push(segment);
    this.#step();
  };

  async #answer(call: string, args: unknown[], answer: Answer | undefined): Promise<unknown> {
    this.calls.push([call, args]);
    assert.ok(answer !== undefined, `${call} was called more often than it has answers`);
    const turn = this.#order?.indexOf(call);
    if (turn === -1) await new Promise(() => undefined);
    if (turn !== undefined) {
      await new Promise<void>((go) => {
        this.#waiting.push({ turn, go });
        this.#step();
      });
    }
    if (answer.error !== undefined) throw Object.assign(new Error(answer.error.message), answer.error);
    return answer.echo === true ? args : untag(answer.value);
  }

  #step(): void {
    const made = this.calls.map(([call]) => call);
    if (this.#order?.every((call) => made.includes(call)) !== true) return;
    for (const { turn, go } of this.#waiting) if (this.segments.length > turn) go();
    this.#waiting = this.#waiting.filter(({ turn }) => this.segments.length <= turn);
  }
}

async function run(one: Case, expect: Expectation): Promise<void> {
  const script = new Script(one.order);
  const heard: LogRecord[] = [];
  const controller = new AbortController();
  const options: RunOptions = {
    state: untag(one.state),
    args: untag(one.args),
    scope: untag(one.scope),
    capabilities: one.grants,
    strictCapabilities: one.strict,
    seed: one.seed,
    limits: one.limits,
    timeoutMs: one.timeoutMs,
    extensions: script.extensions(one.extensions ?? {}),
    onSegment: script.onSegment,
    onLog: (record) => {
      heard.push(record);
      if (one.cancel === true) controller.abort();
    },
    signal: controller.signal,
  };
  const own = one.binary === undefined ? runtime : newRuntime({ binaryPath: one.binary });
  const outcome = await own.run(one.source, options).then(
    ({ value, limited }) => ({ value, limited, error: undefined }),
    (error: unknown) => ({ value: undefined, limited: (error as NexusError).limited, error }),
  );
  if (expect.error !== undefined) checkError(expect.error, outcome.error);
  else {
    if (outcome.error !== undefined) throw outcome.error as Error;
    if (expect.depth !== undefined) assert.equal(depth(outcome.value), expect.depth);
    else if (expect.anyValue !== true) assert.deepStrictEqual(outcome.value, untag(expect.value));
  }
  if (expect.report !== undefined) assert.equal(formatError(outcome.error as NexusError, { source: one.source }), expect.report);
  assert.deepStrictEqual(heard, script.segments.flatMap(({ logs }) => logs));
  const all = <Effect>(key: (segment: Segment) => Effect[]): Effect[] => script.segments.flatMap(key);
  assert.deepStrictEqual(all((segment) => segment.stateMutations), untag(expect.stateMutations ?? []));
  const events = all((segment) => segment.events).map(({ name, payload }) => ({ name, payload }));
  if (expect.eventCount !== undefined) assert.equal(events.length, expect.eventCount);
  else assert.deepStrictEqual(events, untag(expect.events ?? []));
  assert.deepStrictEqual(all((segment) => segment.viewCommands), untag(expect.viewCommands ?? []));
  if (expect.logs !== undefined) {
    assert.deepStrictEqual(all((segment) => segment.logs).map(({ level, message }) => [level, message]), expect.logs);
  }
  // what was refused before it ran has no segment
  if (script.segments.length > 0) assert.deepStrictEqual(outcome.limited, expect.limited);
  assert.deepStrictEqual(script.segments.map(({ limited }) => limited), script.segments.map((_, seq) => (seq === 0 ? expect.limited : undefined)));
  if (expect.calls !== undefined) assert.deepStrictEqual(script.calls, untag(expect.calls));
  if (expect.segments !== undefined) {
    const keys = script.segments.map(({ stateMutations }) => stateMutations.map(({ key }) => key));
    assert.deepStrictEqual(keys, expect.segments);
  }
}

async function runMany(one: Case, contexts: NonNullable<Case['many']>): Promise<void> {
  const extensions = new Script(one.order).extensions(one.extensions ?? {});
  const given = contexts.map(({ args, grants, limits }) => ({ args: untag(args), ...(limits && { limits }), ...(grants && { capabilities: grants }) }));
  const results = await runtime.runMany(one.source, given, { extensions });
  assert.equal(results.length, contexts.length);
  for (const [at, { expect }] of contexts.entries()) {
    const { value, error, limited } = results[at] as (typeof results)[0];
    assert.deepStrictEqual(limited, expect.limited);
    if (expect.error !== undefined) checkError(expect.error, error);
    else assert.deepStrictEqual({ value, error }, { value: untag(expect.value), error: undefined });
  }
}

function checkError(expect: NonNullable<Expectation['error']>, error: unknown): void {
  assert.ok(error instanceof NexusError, `it did not fail: ${String(error)}`);
  const told = `${error.code}: ${error.message}`;
  assert.equal(error.code, expect.code, told);
  if (expect.name !== undefined) assert.equal(error.errorName, expect.name, told);
  if (expect.message !== undefined) assert.equal(error.message, expect.message);
  if (expect.messageContains !== undefined) assert.ok(error.message.includes(expect.messageContains), told);
  if (expect.capability !== undefined) assert.equal(error.capability, expect.capability);
  if (expect.line !== undefined) assert.equal(error.location?.line, expect.line, told);
  if (expect.retryable !== undefined) assert.equal(error.retryable, expect.retryable);
  for (const [key, value] of Object.entries(expect.context ?? {})) assert.equal(error.context?.[key], value, told);
}

function depth(value: unknown): number {
  return Array.isArray(value) ? 1 + depth(value[0]) : 0;
}

test('the names are different, and there are many', () => {
  assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length);
  assert.ok(cases.length >= 80);
});

for (const one of cases) {
  test(`conformance: ${one.name}`, WATCHDOG, async () => {
    ran++;
    if (one.check?.error !== undefined) {
      assert.equal((await failure(runtime.checkHandler(one.source))).code, one.check.error);
    } else if (one.check !== undefined) {
      const { capabilities, suspendMode } = await runtime.checkHandler(one.source);
      assert.deepStrictEqual({ capabilities: capabilities.sort(), suspendMode }, one.check);
    } else if (one.many !== undefined) {
      await runMany(one, one.many);
    } else {
      assert.ok(one.expect !== undefined, 'a case expects something');
      for (let time = 0; time < (one.repeat ?? 1); time++) await run(one, one.expect);
    }
  });
}
