// row: H7
// expect: EXECUTION_ERROR | RESOURCE_LIMIT | TIMEOUT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (;;) crypto.getRandomValues(new Uint8Array(1 << 20));
