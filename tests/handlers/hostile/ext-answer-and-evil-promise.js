// row: H7
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
Promise.prototype.then = () => { throw new Error("stolen"); };
globalThis.Promise = class {};
return await $ext.a.b(1);
