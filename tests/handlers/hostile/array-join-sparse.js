// row: H3
// expect: TIMEOUT | MEMORY_LIMIT | EXECUTION_ERROR
const a = [];
a.length = 2 ** 32 - 1;
return a.join();
