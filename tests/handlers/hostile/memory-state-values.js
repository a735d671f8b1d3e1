// row: H5
// expect: RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; ; i++) $state['k' + i] = 'x'.repeat(1e6);
