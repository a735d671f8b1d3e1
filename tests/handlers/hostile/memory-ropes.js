// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR
const all = [];
let s = 'x'.repeat(1000);
for (let i = 0; ; i++) { s = s + i; all.push(s + 'y'); }
