// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: {"x":1}
Object.prototype.then = function (resolve) { delete Object.prototype.then; resolve("evil"); };
await $ext.a.b(1);
return 1;
