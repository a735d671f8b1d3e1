// row: H3
// expect: TIMEOUT
const s = '\u0344'.repeat(200000);
for (;;) s.normalize('NFKD');
