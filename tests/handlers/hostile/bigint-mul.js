// row: H3
// expect: TIMEOUT
const a = (1n << 400000n) - 1n;
for (;;) a * a;
