// row: H4
// expect: EXECUTION_ERROR RangeError
function* g() { yield* g(); }
[...g()];
