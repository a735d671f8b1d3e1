// row: H3
// expect: TIMEOUT
const s = '\u00e9'.repeat(1e6);
for (;;) s.localeCompare(s + 'x');
