// row: H5
// expect: MEMORY_LIMIT
const all = [];
for (;;) all.push(class { a = 1; static b() {} get c() { return 1; } });
