// row: H7
// expect: EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
$ext.a.b(1).then(() => { for (;;); });
throw new Error("x");
