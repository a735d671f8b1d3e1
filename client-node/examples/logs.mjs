// What a handler logs, while it runs: nobody has to wait for its end to see that it is alive.
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const code = `console.log('begun'); for (;;);`;
const stop = new AbortController();
const onLog = ({ level, message }) => {
  console.log(level, message);
  stop.abort();
};
await runtime.run(code, { onLog, signal: stop.signal }).catch((error) => console.log(error.name));
await runtime.shutdown();
// prints info begun
// prints AbortError
