// row: H3
// expect: TIMEOUT | EXECUTION_ERROR
function* all() { for (;;) yield 1; }
all().map(x => x).filter(() => false).drop(1e9).next();
