// row: H7
// expect: success | EXECUTION_ERROR | MEMORY_LIMIT | RESOURCE_LIMIT | TIMEOUT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const keys = Array.from({ length: 1e5 }, (_, i) => "k" + i);
$emit("e", new Proxy({}, { ownKeys: () => keys, getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: 1 }), get: () => 1 }));
return 1;
