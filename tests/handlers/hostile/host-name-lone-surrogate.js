// row: H7
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
$state["\ud800"] = 1;
$emit("\udfff", "\ud83d");
return 1;
