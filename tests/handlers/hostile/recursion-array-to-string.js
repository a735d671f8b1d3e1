// row: H4
// expect: EXECUTION_ERROR RangeError
let a = [];
for (let i = 0; i < 1e5; i++) a = [a];
return String(a);
