// row: H7
// expect: RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (;;) $emit("e", 1);
