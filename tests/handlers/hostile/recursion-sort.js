// row: H4
// expect: EXECUTION_ERROR RangeError
const f = () => [2, 1].sort(f) && 0;
f();
