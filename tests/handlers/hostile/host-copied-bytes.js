// row: H7
// expect: RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const b = new Uint8Array(60000);
for (;;) { try { crypto.getRandomValues(b); } catch { } }
