// row: H1
// expect: TIMEOUT | MEMORY_LIMIT | EXECUTION_ERROR
const p = new Proxy({}, { getPrototypeOf: () => p });
for (const k in p);
for (;;);
