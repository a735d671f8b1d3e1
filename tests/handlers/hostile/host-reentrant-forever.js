// row: H7
// expect: EXECUTION_ERROR RangeError | RESOURCE_LIMIT | SERIALIZATION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const o = { get x() { $emit("e", o); return 1; } };
$emit("e", o);
