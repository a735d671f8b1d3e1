// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
return JSON.stringify({ toJSON() { $ext.a.b(1); return 1; } });
