// What is told of a handler that failed: where, what it had done by then, and what was behind it on this side.
import { formatError, NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const source = `$state.step = 'saving';
const saved = await $ext.db.save({ id: 7 });
return saved.id`;
const extensions = { db: { save: async () => { throw Object.assign(new Error('row 7 is locked'), { query: 'UPDATE ...' }); } } };
try {
  await runtime.run(source, { extensions, capabilities: ['state:write:step', 'ext:db'] });
} catch (error) {
  console.log(formatError(error, { source, handlerName: 'save.js' }));
  console.log(error.stateMutations, error.cause.query);
}
await runtime.shutdown();
// prints EXECUTION_ERROR: row 7 is locked
// prints   at save.js:2:29
// prints   1 | $state.step = 'saving';
// prints > 2 | const saved = await $ext.db.save({ id: 7 });
// prints     |                             ^
// prints   3 | return saved.id
// prints   caused by Error: row 7 is locked
// prints [ { op: 'set', key: 'step', value: 'saving' } ] UPDATE ...
