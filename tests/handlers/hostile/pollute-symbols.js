// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (const s of [Symbol.toPrimitive, Symbol.toStringTag, Symbol.isConcatSpreadable]) Object.defineProperty(Object.prototype, s, { get() { throw new Error("stolen"); }, configurable: true });
$state.a = { b: [1, 2, { c: 3 }] };
$emit('e', [1, 'x', { a: 1 }]);
$view.focus('v');
$log('x', { a: 1 });
return { m: new Uint8Array([1, 2]), s: $state.a.b[2].c };
