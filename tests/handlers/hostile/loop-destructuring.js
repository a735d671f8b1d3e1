// row: H1
// expect: TIMEOUT | MEMORY_LIMIT
const [...all] = { *[Symbol.iterator]() { for (;;) yield 1; } };
