// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
const a = Array.from({ length: 1e6 }, (_, i) => (i * 7919) % 1000003);
for (;;) a.slice().sort();
