// row: H5
// expect: MEMORY_LIMIT
let p = {};
const all = [];
for (;;) all.push(p = new Proxy({}, {}));
