// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
let s = 'ab'.repeat(500000);
for (;;) s.replaceAll('a', 'cc');
