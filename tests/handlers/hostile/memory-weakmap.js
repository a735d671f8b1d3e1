// row: H5
// expect: MEMORY_LIMIT
const m = new WeakMap(), keys = [];
for (;;) { const k = {}; keys.push(k); m.set(k, new Array(100)); }
