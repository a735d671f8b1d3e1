// row: H9
// expect: EXECUTION_ERROR | success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
return typeof $state.constructor?.constructor?.('return 1');
