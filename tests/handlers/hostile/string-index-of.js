// row: H3
// expect: TIMEOUT
const s = 'a'.repeat(3e6), t = 'a'.repeat(1e6) + 'b';
for (;;) s.indexOf(t);
