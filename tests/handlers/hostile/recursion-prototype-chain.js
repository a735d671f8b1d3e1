// row: H4
// expect: success | EXECUTION_ERROR RangeError | TIMEOUT
let o = null;
for (let i = 0; i < 1e5; i++) o = Object.create(o);
return o.missing === undefined;
