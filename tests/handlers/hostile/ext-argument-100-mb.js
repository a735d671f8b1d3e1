// row: H7
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
await $ext.a.b(new Uint8Array(100e6));
