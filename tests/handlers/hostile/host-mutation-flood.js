// row: H7
// expect: RESOURCE_LIMIT
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; ; i++) $state["k" + i] = i;
