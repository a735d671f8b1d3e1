// row: H7
// expect: RESOURCE_LIMIT | MEMORY_LIMIT | success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; i < 100; i++) $emit('e', 'x'.repeat(1e6));
return 1;
