// row: H3
// expect: TIMEOUT
const a = 3n ** 600000n;
for (;;) a.toString();
