// row: H5
// expect: MEMORY_LIMIT | TIMEOUT
const all = [];
for (;;) { all.push('x'.repeat(1e5)); $log(all.at(-1)); }
