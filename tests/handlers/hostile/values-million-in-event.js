// row: H8
// expect: success | RESOURCE_LIMIT | MEMORY_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
$emit("e", new Array(1e6).fill(1));
return 1;
