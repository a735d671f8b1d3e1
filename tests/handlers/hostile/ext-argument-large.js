// row: H7
// expect: MEMORY_LIMIT | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
const s = "x".repeat(1e6);
await $ext.a.b(new Array(20).fill(s));
