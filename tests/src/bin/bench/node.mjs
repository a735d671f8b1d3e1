// The Node side of the bench: echo over a bare socket, then the client's calls, in one process. Prints one JSON document.
import { createConnection } from 'node:net';
import { once } from 'node:events';

const { BENCH_ECHO_PATH, BENCH_CLIENT, NEXUS_SIDECAR_BIN, BENCH_COUNT } = process.env;
const count = Number(BENCH_COUNT);

const TURNS = 10;

function summary(taken) {
  taken.sort((a, b) => a - b);
  const at = (percent) => taken[Math.max(1, Math.ceil((taken.length * percent) / 100)) - 1] * 1000;
  return { p50Us: at(50), p99Us: at(99), count: taken.length };
}

async function measure(n, f, taken) {
  for (let i = 0; i < n / 5; i++) await f(i);
  for (let i = 0; i < n; i++) {
    const started = performance.now();
    await f(i);
    taken.push(performance.now() - started);
  }
}

// 200 bytes there and back.
async function connectEcho() {
  const socket = createConnection(BENCH_ECHO_PATH);
  await once(socket, 'connect');
  const message = Buffer.alloc(200, 7);
  let missing = 0;
  let done;
  socket.on('data', (chunk) => {
    missing -= chunk.length;
    if (missing === 0) done();
  });
  return () => {
    missing = message.length;
    const back = new Promise((resolve) => (done = resolve));
    socket.write(message);
    return back;
  };
}

function check(result, expected) {
  if (result.status !== 'success' || result.returnValue !== expected) throw new Error(`wrong result: ${JSON.stringify(result)}`);
}

async function inFlight(width, total, f) {
  const taken = [];
  let next = 0;
  const lane = async () => {
    while (next < total) {
      const i = next++;
      const started = performance.now();
      await f(i);
      taken.push(performance.now() - started);
    }
  };
  const started = performance.now();
  await Promise.all(Array.from({ length: width }, lane));
  const seconds = (performance.now() - started) / 1000;
  return { ...summary(taken), perSecond: total / seconds };
}

/** A thousand formulas in one request, in as many requests at once, and in as many one after another: the best of some turns, in ms. */
async function manyFormulas(runtime) {
  const contexts = Array.from({ length: 1_000 }, (_, a) => ({ args: { a } }));
  const formula = 'return $args.a * 1.19 + 1';
  const ways = {
    oneRequest: () => runtime.runMany(formula, contexts),
    inFlight: () => Promise.all(contexts.map((context) => runtime.run(formula, context))),
    inARow: async () => {
      for (const context of contexts) await runtime.run(formula, context);
    },
  };
  const best = Object.fromEntries(Object.keys(ways).map((name) => [name, Infinity]));
  for (let turn = 0; turn < TURNS + 5; turn++) {
    for (const [name, way] of Object.entries(ways)) {
      const began = performance.now();
      await way();
      best[name] = Math.min(best[name], performance.now() - began);
    }
  }
  return { formulas: contexts.length, ...best, timesInFlight: best.inFlight / best.oneRequest, timesInARow: best.inARow / best.oneRequest };
}

const echo = await connectEcho();
const { encodePayload, NexusRuntime } = await import(BENCH_CLIENT);
const runtime = new NexusRuntime({ binaryPath: NEXUS_SIDECAR_BIN });
await runtime.start();

const source = 'return $args.a + 1';
const tiny = async (i) => check(await runtime.executeHandler(source, { args: { a: i } }), i + 1);
const calling = 'return (await $ext.math.next($args.a)) + 1';
const call = async (i) => {
  const first = await runtime.executeHandler(calling, { args: { a: i }, capabilities: ['ext:math'] });
  if (first.status !== 'suspended') throw new Error(`not suspended: ${JSON.stringify(first)}`);
  check(await runtime.resumeHandler(first.suspension.suspensionId, { success: true, value: i }), i + 1);
};

// In turns, so that whatever else the machine does meets all three.
const taken = { nodeEcho: [], nodeTiny: [], nodeCall: [] };
for (let turn = 0; turn < TURNS; turn++) {
  await measure(count / TURNS, echo, taken.nodeEcho);
  await measure(count / TURNS, tiny, taken.nodeTiny);
  await measure(count / TURNS / 2, call, taken.nodeCall);
}
const figures = Object.fromEntries(Object.entries(taken).map(([name, times]) => [name, summary(times)]));
await inFlight(16, count * 2, tiny);
figures.nodeTiny16 = await inFlight(16, count * 4, tiny);
// Ten times as many at once as may be suspended: what is over waits in the client, and none fails.
const extensions = { math: { next: (n) => n } };
const started = performance.now();
const runs = Array.from({ length: 10_000 }, (_, a) => runtime.run(calling, { args: { a }, capabilities: ['ext:math'], extensions }));
const failed = (await Promise.allSettled(runs)).filter(({ status }) => status === 'rejected').length;
figures.nodeBurst = { runs: runs.length, failed, perSecond: (runs.length / (performance.now() - started)) * 1000 };
figures.nodeMany = await manyFormulas(runtime);
await runtime.shutdown();

// 10 MB, already encoded: what the way of the bytes costs, and not their encoding.
const large = encodePayload({ small: 7, records: Array.from({ length: 10_000 }, (_, i) => ({ i, text: 'x'.repeat(1000) })) });
const readSmall = { state: large, capabilities: ['state:read:small'] };
for (const [name, sharedMemory] of [['nodeState10MBSocket', false], ['nodeState10MBSegment', true]]) {
  const runtime = new NexusRuntime({ binaryPath: NEXUS_SIDECAR_BIN, sharedMemory });
  await runtime.start();
  const times = [];
  const once = async () => {
    const { status } = await runtime.executeHandler('return $state.small', readSmall);
    if (status !== 'success') throw new Error(status);
  };
  await measure(Math.max(20, count / 25), once, times);
  figures[name] = summary(times);
  await runtime.shutdown();
}
console.log(JSON.stringify(figures));
process.exit(0);
