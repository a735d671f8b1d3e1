// row: H7
// expect: EXECUTION_ERROR RangeError
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
await $ext.a.b(1);
(function f() { f(); })();
