// row: H3
// expect: TIMEOUT | success
const a = [];
a.length = 2 ** 32 - 1;
for (;;) a.indexOf(7);
