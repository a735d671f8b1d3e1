// row: H4
// expect: EXECUTION_ERROR RangeError | TIMEOUT
let a = [];
for (let i = 0; i < 1e5; i++) a = [a];
JSON.stringify(a);
