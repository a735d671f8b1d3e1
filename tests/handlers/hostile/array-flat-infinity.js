// row: H3
// expect: TIMEOUT | EXECUTION_ERROR RangeError | MEMORY_LIMIT
let a = [1, 1];
for (let i = 0; i < 40; i++) a = [a, a];
a.flat(Infinity);
