// Plugins that keep a state and emit events. The state stays with the sidecar; the host takes what the plugins may tell.
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const state = await runtime.createState({ opened: 0 });
const plugin = `$state.opened += 1;
if ($state.opened === 2) $emit('badge', { text: 'twice' });
$log('opened', $args.file)`;
const capabilities = ['state:read:opened', 'state:write:opened', 'events:emit:badge'];
for (const file of ['a.txt', 'b.txt']) {
  const { events, logs } = await runtime.run(plugin, { state, capabilities, args: { file } });
  console.log(logs[0].message, events.map(({ name, payload }) => `${name}=${payload.text}`).join());
}
console.log((await state.snapshot()).state.opened);
await runtime.shutdown();
// prints opened a.txt
// prints opened b.txt badge=twice
// prints 2
