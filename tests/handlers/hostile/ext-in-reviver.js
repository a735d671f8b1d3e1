// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return JSON.parse("[1,2]", (k, v) => { $ext.a.b(k); return v; });
