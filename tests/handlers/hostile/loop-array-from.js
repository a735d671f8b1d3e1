// row: H1
// expect: TIMEOUT | MEMORY_LIMIT
Array.from({ [Symbol.iterator]: () => ({ next: () => ({ value: 1, done: false }) }) });
