// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Array.prototype[Symbol.iterator] = function* () { yield 'evil'; };
Array.prototype.push = () => { throw 1; };
$log('x', 1, [2]);
$state.a = [1, 2];
return $state.keys().length;
