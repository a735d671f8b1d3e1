// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// value: ["__proto__"]
const o = JSON.parse('{"__proto__":{"evil":1}}');
$emit("e", o);
return Object.keys(o);
