// row: H7
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return await $ext.a.b({ get x() { $ext.a.b(1); $emit("e", 1); return 1; } });
