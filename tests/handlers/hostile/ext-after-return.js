// row: H7
// expect: TIMEOUT | success
// expect-stack: TIMEOUT | success | EXECUTION_ERROR TypeError
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
$ext.a.b(1).then(() => { for (;;); });
return 1;
