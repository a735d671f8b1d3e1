// A report that shows how far it is: each segment's effects are there before the call is answered that it waits for.
import { applyMutations, NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const source = `$state.progress = 'loading';
const rows = await $ext.db.query('orders');
$state.progress = 'adding ' + rows.length + ' rows';
$state.sum = rows.reduce((sum, row) => sum + row, 0)`;
let screen = {};
await runtime.run(source, {
  capabilities: ['state:write:*', 'ext:db.query'],
  extensions: { db: { query: async () => [1, 2, 3] } },
  onSegment({ stateMutations }) {
    screen = applyMutations(screen, stateMutations);
    console.log(JSON.stringify(screen));
  },
});
await runtime.shutdown();
// prints {"progress":"loading"}
// prints {"progress":"adding 3 rows","sum":6}
