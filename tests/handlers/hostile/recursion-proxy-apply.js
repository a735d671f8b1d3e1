// row: H4
// expect: EXECUTION_ERROR RangeError | TIMEOUT
let p = () => 1;
for (let i = 0; i < 50000; i++) p = new Proxy(p, {});
p();
