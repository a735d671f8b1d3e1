// row: H7
// expect: success | SERIALIZATION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const b = new ArrayBuffer(1 << 20), v = new Uint8Array(b);
$emit("e", [{ get x() { b.transfer(); return 1; } }, v]);
return 1;
