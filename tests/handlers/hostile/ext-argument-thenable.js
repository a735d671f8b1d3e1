// row: H7
// expect: success | EXECUTION_ERROR | TIMEOUT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return await $ext.a.b({ then(resolve) { resolve(1); }, get x() { return 1; } });
