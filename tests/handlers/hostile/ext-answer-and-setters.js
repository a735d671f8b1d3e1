// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: {"x":1}
// value: 1
Object.defineProperty(Object.prototype, "x", { set() { throw new Error("stolen"); }, get() { return "evil"; } });
const v = await $ext.a.b(1);
return v.x;
