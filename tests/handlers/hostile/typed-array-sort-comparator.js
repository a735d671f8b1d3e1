// row: H3
// expect: TIMEOUT
const a = new Float64Array(1e5);
for (;;) a.sort(() => Math.random() - 0.5);
