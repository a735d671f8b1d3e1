// row: H8
// expect: SERIALIZATION_ERROR | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const a = [];
a.push(a);
$emit("e", a);
