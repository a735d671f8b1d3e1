// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
// value: 7
for (const k of Object.getOwnPropertyNames(Promise)) { try { Promise[k] = () => { throw new Error("stolen"); }; } catch { } }
Promise.prototype.finally = Promise.prototype.catch = () => { throw new Error("stolen"); };
const v = await $ext.a.b(1);
return v;
