// row: H7
// expect: RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
const s = "x".repeat(1e6);
for (;;) $ext.a.b(s);
