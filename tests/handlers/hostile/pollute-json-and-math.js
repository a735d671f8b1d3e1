// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
JSON.stringify = JSON.parse = Math.random = Date.now = () => { throw 1; };
$log({ a: 1 });
$emit('e', { a: 1 });
return $time.now() > 0;
