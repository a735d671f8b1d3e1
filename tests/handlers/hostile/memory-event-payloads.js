// row: H5
// expect: success | RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; i < 15; i++) $emit('e', 'x'.repeat(1e6));
await $ext.a.b(1);
$view.command('v', 'c', 'x'.repeat(9e5));
