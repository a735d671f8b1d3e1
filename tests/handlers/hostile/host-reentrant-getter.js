// row: H7
// expect: success | EXECUTION_ERROR | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
$emit("outer", { get x() { $emit("inner", 1); $state.y = 2; return $state.y; } });
return $state.y;
