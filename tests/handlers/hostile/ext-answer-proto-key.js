// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: {"__proto__":{"polluted":true}}
// value: true
const v = await $ext.a.b(1);
return ({}).polluted === undefined && Object.getPrototypeOf(v) === Object.prototype;
