// row: H3
// expect: TIMEOUT | EXECUTION_ERROR RangeError
const codes = new Array(60000).fill(65);
for (;;) String.fromCharCode(...codes);
