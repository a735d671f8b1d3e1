// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Date.prototype.getTime = Date.prototype.valueOf = Date.prototype.toISOString = Date.prototype[Symbol.toPrimitive] = () => { throw new Error("stolen"); };
$state.a = { b: [1, 2, { c: 3 }] };
$emit('e', [1, 'x', { a: 1 }]);
$view.focus('v');
$log('x', { a: 1 });
$emit("d", new Date(0));
return { m: new Uint8Array([1, 2]), s: $state.a.b[2].c };
