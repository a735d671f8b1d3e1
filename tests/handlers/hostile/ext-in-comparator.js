// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return [3, 1, 2].sort((a, b) => { $ext.a.b(a); return a - b; });
