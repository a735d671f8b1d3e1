// row: H6
// expect: MEMORY_LIMIT | TIMEOUT | success
await Promise.allSettled(Array.from({ length: 1e6 }, (_, i) => i % 2 ? Promise.reject(i) : i));
return 1;
