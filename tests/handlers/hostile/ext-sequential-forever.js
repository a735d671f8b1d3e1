// row: H7
// expect: RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
// limits: maxHostCalls=50
for (;;) await $ext.a.b(1);
