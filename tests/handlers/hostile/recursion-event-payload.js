// row: H4
// expect: SERIALIZATION_ERROR | EXECUTION_ERROR RangeError
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
let a = [];
for (let i = 0; i < 1e5; i++) a = [a];
$emit("e", a);
