// row: H3
// expect: TIMEOUT | EXECUTION_ERROR RangeError | MEMORY_LIMIT
const a = 1n << 30000000n;
for (;;) BigInt.asUintN(29999999, a - 1n);
