// row: H3
// expect: success | TIMEOUT | MEMORY_LIMIT | EXECUTION_ERROR
const a = [];
a.length = 2 ** 32 - 1;
a.fill(1);
return 1;
