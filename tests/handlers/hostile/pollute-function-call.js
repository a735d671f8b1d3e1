// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => { throw 1; };
$state.x = 1;
return $state.x;
