// row: H5
// expect: MEMORY_LIMIT
const all = [];
for (;;) all.push(() => all);
