// row: H8
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (const k of Object.getOwnPropertyNames(String.prototype)) { try { String.prototype[k] = () => { throw new Error("stolen"); }; } catch { } }
$state.a = { b: [1, 2, { c: 3 }] };
$emit('e', [1, 'x', { a: 1 }]);
$view.focus('v');
$log('x', { a: 1 });
return { m: new Uint8Array([1, 2]), s: $state.a.b[2].c };
