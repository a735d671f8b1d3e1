// row: H7
// expect: EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
async function f() { try { throw new Error("x"); } finally { Promise.resolve().then(() => { throw 1; }); } }
await f();
