// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
for (;;) 'x'.padStart(5e6, 'ab');
