// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
const all = [];
for (;;) all.push(1n << 1000000n);
