// row: H3
// expect: TIMEOUT
const a = 3n ** 600000n, b = 7n ** 150000n;
for (;;) a / b;
