// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Object.setPrototypeOf($state, { evil: 1 });
return 1;
