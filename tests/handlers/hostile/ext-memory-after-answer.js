// row: H7
// expect: MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
await $ext.a.b(1);
const all = [];
for (;;) all.push(new Array(1000).fill(7));
