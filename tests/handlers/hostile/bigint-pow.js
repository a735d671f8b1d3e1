// row: H3
// expect: TIMEOUT | EXECUTION_ERROR RangeError | MEMORY_LIMIT
let n = 3n;
for (;;) n = n * n;
