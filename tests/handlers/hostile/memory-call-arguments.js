// row: H5
// expect: success | RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
await $ext.a.b('x'.repeat(8e6));
return await $ext.a.b('x'.repeat(8e6));
