// row: H7
// expect: RESOURCE_LIMIT | EXECUTION_ERROR RangeError
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (;;) $ext.a.b(1);
