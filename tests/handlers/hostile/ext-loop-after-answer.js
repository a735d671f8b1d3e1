// row: H7
// expect: TIMEOUT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
await $ext.a.b(1);
for (;;);
