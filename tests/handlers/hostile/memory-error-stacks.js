// row: H5
// expect: MEMORY_LIMIT
const all = [];
const f = n => n ? f(n - 1) : all.push(new Error("e"));
for (;;) f(20);
