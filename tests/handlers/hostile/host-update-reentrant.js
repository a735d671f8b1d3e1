// row: H7
// expect: success | EXECUTION_ERROR RangeError | RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const f = () => $state.update("k", f);
f();
