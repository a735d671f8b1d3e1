// row: H5
// expect: MEMORY_LIMIT
const o = {};
for (let i = 0; ; i++) o['key' + i] = i;
