// row: H3
// expect: TIMEOUT
const s = 'a,'.repeat(200000);
for (;;) s.split(',').join(';');
