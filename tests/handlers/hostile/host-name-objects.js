// row: H7
// expect: success | EXECUTION_ERROR | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const name = { toString() { $emit("inner", 1); return "outer"; } };
$emit(name, 1);
$view.focus(name);
$state.set(name, 1);
return 1;
