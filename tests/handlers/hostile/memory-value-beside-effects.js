// row: H5
// expect: RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; i < 10; i++) $state['k' + i] = 'x'.repeat(1e6);
await $ext.a.b(1);
return 'x'.repeat(7e6);
