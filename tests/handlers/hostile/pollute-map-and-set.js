// row: H8
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
Map.prototype[Symbol.iterator] = Map.prototype.entries = Map.prototype.forEach = Set.prototype[Symbol.iterator] = Set.prototype.values = () => { throw new Error("stolen"); };
Object.defineProperty(Map.prototype, "size", { get: () => 1e9 });
$state.a = { b: [1, 2, { c: 3 }] };
$emit('e', [1, 'x', { a: 1 }]);
$view.focus('v');
$log('x', { a: 1 });
$emit("m", new Map([["k", 1]]));
$emit("s", new Set([1]));
return { m: new Uint8Array([1, 2]), s: $state.a.b[2].c };
