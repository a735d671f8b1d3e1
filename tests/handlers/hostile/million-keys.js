// row: H8
// expect: success | MEMORY_LIMIT | TIMEOUT
const o = {};
for (let i = 0; i < 1e6; i++) o[i] = i;
return Object.keys(o).length;
