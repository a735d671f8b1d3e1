// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
const s = '\u00df'.repeat(1e6);
for (;;) s.toUpperCase().toLowerCase();
