// row: H7
// expect: EXECUTION_ERROR RangeError | RESOURCE_LIMIT
// expect-stack: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
await Promise.all(Array.from({ length: 9000 }, (_, i) => $ext.a.b(i)));
