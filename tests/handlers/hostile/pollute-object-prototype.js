// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Object.prototype.get = () => 'evil';
Object.prototype.value = 'evil';
Object.prototype.then = undefined;
$state.a = { b: 1 };
$emit('e', { c: 2 });
return $state.a.b;
