// Rules of customers, compiled once: each sees the order and nothing else, and a broken one does not stop the others.
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const sources = {
  large: 'return $args.total > 1000',
  abroad: `return $args.country !== 'DE'`,
  broken: 'return $args.customer.address.zip > 0',
};
const rules = new Map();
for (const [name, source] of Object.entries(sources)) rules.set(name, await runtime.precompileHandler(source));
const order = { total: 1200, country: 'DE' };
for (const [name, rule] of rules) {
  const { value } = await runtime.run(rule, { args: order, handlerName: name }).catch((error) => ({ value: error.code }));
  console.log(name, value);
}
await runtime.shutdown();
// prints large true
// prints abroad false
// prints broken EXECUTION_ERROR
