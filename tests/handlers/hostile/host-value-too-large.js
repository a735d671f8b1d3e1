// row: H7
// expect: RESOURCE_LIMIT | MEMORY_LIMIT | success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const s = 'x'.repeat(17 << 20);
try { $state.k = s; } catch { }
return 1;
