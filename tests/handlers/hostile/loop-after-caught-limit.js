// row: H1
// expect: RESOURCE_LIMIT | TIMEOUT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (;;) { try { $emit('e', 1); } catch { } }
