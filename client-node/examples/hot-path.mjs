// The hot path: compiled once, sixteen in flight, a thousand times.
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const handler = await runtime.precompileHandler('return $args * 2');
let next = 0;
let sum = 0;
async function worker() {
  while (next < 1000) {
    const { returnValue } = await runtime.executeCompiledHandler(handler, { args: next++ });
    sum += returnValue;
  }
}
await Promise.all(Array.from({ length: 16 }, worker));
console.log(sum);
await runtime.shutdown();
// prints 999000
