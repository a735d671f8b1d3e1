// row: H3
// expect: TIMEOUT
const a = new Float64Array(500000).map((_, i) => (i * 7919) % 500009);
for (;;) a.slice().sort();
