// The Node side of the bench: echo over a bare socket, then the client's calls, in one process. Prints one JSON document.
import { createConnection } from 'node:net';
import { once } from 'node:events';

const { BENCH_ECHO_PATH, BENCH_CLIENT, NEXUS_SIDECAR_BIN, BENCH_COUNT } = process.env;
const count = Number(BENCH_COUNT);

function summary(taken) {
  taken.sort((a, b) => a - b);
  const at = (percent) => taken[Math.max(1, Math.ceil((taken.length * percent) / 100)) - 1] * 1000;
  return { p50Us: at(50), p99Us: at(99), count: taken.length };
}

async function sample(n, f) {
  for (let i = 0; i < n / 5; i++) await f(i);
  const taken = [];
  for (let i = 0; i < n; i++) {
    const started = performance.now();
    await f(i);
    taken.push(performance.now() - started);
  }
  return summary(taken);
}

// 200 bytes there and back, one at a time.
async function echo() {
  const socket = createConnection(BENCH_ECHO_PATH);
  await once(socket, 'connect');
  const message = Buffer.alloc(200, 7);
  let missing = 0;
  let done;
  socket.on('data', (chunk) => {
    missing -= chunk.length;
    if (missing === 0) done();
  });
  const result = await sample(count, () => {
    missing = message.length;
    const back = new Promise((resolve) => (done = resolve));
    socket.write(message);
    return back;
  });
  socket.destroy();
  return result;
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

const figures = { nodeEcho: await echo() };
const { NexusRuntime } = await import(BENCH_CLIENT);
const runtime = new NexusRuntime({ binaryPath: NEXUS_SIDECAR_BIN, log: 'error' });
await runtime.start();

const source = 'return $args.a + 1';
const tiny = async (i) => check(await runtime.executeHandler(source, { args: { a: i } }), i + 1);
figures.nodeTiny = await sample(count, tiny);
await inFlight(16, count, tiny);
figures.nodeTiny16 = await inFlight(16, count * 4, tiny);

const calling = 'return (await $ext.math.next($args.a)) + 1';
figures.nodeCall = await sample(count, async (i) => {
  const first = await runtime.executeHandler(calling, { args: { a: i }, capabilities: ['ext:math'] });
  if (first.status !== 'suspended') throw new Error(`not suspended: ${JSON.stringify(first)}`);
  check(await runtime.resumeHandler(first.suspension.suspensionId, { success: true, value: i }), i + 1);
});
figures.nodeEchoAgain = await echo();
await runtime.shutdown();
console.log(JSON.stringify(figures));
process.exit(0);
