// row: H3
// expect: TIMEOUT
const s = '\ud800'.repeat(2e6);
for (;;) { s.isWellFormed(); s.toWellFormed(); }
