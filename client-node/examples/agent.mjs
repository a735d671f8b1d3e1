// Code that a model wrote, with the tools that it may use. What is not handed over is not there.
import { formatError, NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime({ timeoutMs: 2000, maxHostCalls: 100 });
const tools = {
  search: { products: async (words) => [{ id: 1, name: `${words} A`, price: 9 }, { id: 2, name: `${words} B`, price: 5 }] },
  cart: { add: async (id) => ({ ok: true, id }) },
};
const answers = [
  `const found = await $ext.search.products('lamp');
   const cheapest = found.sort((a, b) => a.price - b.price)[0];
   return await $ext.cart.add(cheapest.id)`,
  'return await $ext.fs.readFile("/etc/passwd")',
];
for (const code of answers) {
  const ran = await runtime.run(code, { extensions: tools }).catch((error) => error);
  console.log(ran instanceof Error ? formatError(ran, { source: code }).split(':')[0] : ran.value); // back to the model
}
await runtime.shutdown();
// prints { ok: true, id: 2 }
// prints PERMISSION_DENIED
