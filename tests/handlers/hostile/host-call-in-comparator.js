// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
return [3, 1, 2].sort((a, b) => { $state.n = a; $log(b); return a - b; });
