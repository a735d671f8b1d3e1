// row: H3
// expect: TIMEOUT
const a = 3n ** 2000000n, b = 7n ** 500000n;
for (;;) a / b;
