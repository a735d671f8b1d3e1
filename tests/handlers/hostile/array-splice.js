// row: H3
// expect: TIMEOUT
const a = new Array(3e5).fill(1);
for (;;) { a.splice(0, 1); a.unshift(1); }
