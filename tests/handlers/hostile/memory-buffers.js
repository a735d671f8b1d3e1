// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
const all = [];
for (;;) all.push(new Uint8Array(1 << 20).fill(1));
