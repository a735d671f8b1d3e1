// row: H7
// expect: EXECUTION_ERROR | RESOURCE_LIMIT | MEMORY_LIMIT | success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
$state['k'.repeat(8e6)] = 1;
return 1;
