// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
const a = [];
a.length = 2 ** 32 - 1;
a[0] = 1;
a.reverse();
for (;;);
