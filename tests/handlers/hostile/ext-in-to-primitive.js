// row: H7
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return `${{ [Symbol.toPrimitive]() { $ext.a.b(1); return "s"; } }}`;
