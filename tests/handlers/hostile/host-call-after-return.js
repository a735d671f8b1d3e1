// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Promise.resolve().then(() => { $emit("late", 1); $state.late = 1; });
return 1;
