// row: H3
// expect: TIMEOUT
const a = new Float64Array(1e6);
for (;;) a.fill(Math.PI);
