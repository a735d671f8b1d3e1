// row: H3
// expect: TIMEOUT | MEMORY_LIMIT | EXECUTION_ERROR
for (;;) Object.groupBy(new Array(1e5).fill(0).map((_, i) => i), i => i);
