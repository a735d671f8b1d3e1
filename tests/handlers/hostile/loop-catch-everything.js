// row: H1
// expect: TIMEOUT
for (;;) { try { (() => { for (;;); })(); } catch (e) { $log(e); } }
