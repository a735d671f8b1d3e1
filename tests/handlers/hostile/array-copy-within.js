// row: H3
// expect: TIMEOUT
const a = new Array(1e6).fill(1);
for (;;) a.copyWithin(1, 0);
