// row: H4
// expect: success | SERIALIZATION_ERROR | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
let o = {};
for (let i = 0; i < 1e5; i++) o = { o };
$state.deep = o;
return 1;
