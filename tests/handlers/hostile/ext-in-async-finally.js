// row: H7
// expect: EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
try { await $ext.a.b(1); throw new Error("x"); } finally { await $ext.a.b(2); }
