// row: H5
// expect: MEMORY_LIMIT
const all = [];
const never = new Promise(() => {});
for (;;) all.push((async () => { await never; })());
