// row: H5
// expect: MEMORY_LIMIT
const s = new Set();
for (let i = 0; ; i++) s.add({ i });
