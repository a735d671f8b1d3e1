// A route that runs a user's script for each request, with a short time limit, and tells the user what was wrong with it.
import { createServer } from 'node:http';
import { formatError, NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime({ timeoutMs: 200 });
const scripts = { '/double': 'return { answer: $args.n * 2 }', '/endless': 'for (;;);', '/typo': 'return $args.n.foo.bar' };
const server = createServer(async ({ url }, response) => {
  const { pathname, searchParams } = new URL(url, 'http://localhost');
  const ran = await runtime.run(scripts[pathname], { args: { n: Number(searchParams.get('n')) } }).catch((error) => error);
  response.writeHead(ran instanceof Error ? 422 : 200);
  response.end(ran instanceof Error ? formatError(ran, { source: scripts[pathname] }) : JSON.stringify(ran.value));
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
for (const path of ['/double?n=21', '/endless']) {
  const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`);
  console.log(response.status, (await response.text()).split(':')[0]);
}
server.close();
await runtime.shutdown();
// prints 200 {"answer"
// prints 422 TIMEOUT
