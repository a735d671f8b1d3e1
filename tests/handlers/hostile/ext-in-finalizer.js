// row: H7
// expect: success | MEMORY_LIMIT | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
const r = new FinalizationRegistry(() => { $ext.a.b(1); $emit("e", 1); $state.x = 1; });
for (let i = 0; i < 1000; i++) r.register({}, i);
return await $ext.a.b(2);
