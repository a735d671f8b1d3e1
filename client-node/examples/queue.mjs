// Jobs of a queue: an error that may be over next time is tried again, every other one is the job's own fault.
import { setTimeout as sleep } from 'node:timers/promises';
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime({ timeoutMs: 500 });
async function work(job, attempts = 5) {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await runtime.run(job.source, { args: job.args, labels: { job: job.id } })).value;
    } catch (error) {
      if (!error.retryable || attempt === attempts) return `${error.code}: not again`;
      await sleep(error.context?.retryAfterMs ?? 50 * 2 ** attempt);
    }
  }
}
const jobs = [{ id: 'a', source: 'return $args.toUpperCase()', args: 'x' }, { id: 'b', source: 'throw new Error("no")' }];
for (const job of jobs) console.log(job.id, await work(job));
await runtime.shutdown();
// prints a X
// prints b EXECUTION_ERROR: not again
