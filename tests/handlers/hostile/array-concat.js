// row: H3
// expect: TIMEOUT | MEMORY_LIMIT | EXECUTION_ERROR RangeError
let a = [1];
for (;;) a = a.concat(a);
