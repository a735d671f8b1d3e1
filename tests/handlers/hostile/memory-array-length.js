// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError | TIMEOUT
const all = [];
for (;;) { const a = []; a.length = 2 ** 32 - 1; a[2 ** 31] = 1; all.push(a, new Array(1e6).fill(0)); }
