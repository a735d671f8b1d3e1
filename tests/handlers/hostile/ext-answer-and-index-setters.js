// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: [1,2]
// value: 1
Object.defineProperty(Array.prototype, 0, { set() { throw new Error("stolen"); }, configurable: true });
const v = await $ext.a.b(1);
delete Array.prototype[0];
return v[0];
