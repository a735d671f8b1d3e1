// row: H4
// expect: EXECUTION_ERROR RangeError
let p = {};
for (let i = 0; i < 50000; i++) p = new Proxy(p, {});
p.x;
