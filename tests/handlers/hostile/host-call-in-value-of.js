// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// value: 2
return 1 + { valueOf() { $state.x = 1; $emit("e", 2); return $state.x; } };
