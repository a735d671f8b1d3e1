// row: H7
// expect: success | EXECUTION_ERROR | TIMEOUT | MEMORY_LIMIT | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const a = [1];
Object.defineProperty(a, 0, { get() { for (let i = 0; i < 1000; i++) a.push(i); return 1; }, enumerable: true });
$emit("e", a);
return 1;
