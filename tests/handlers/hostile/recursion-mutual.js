// row: H4
// expect: EXECUTION_ERROR RangeError
const a = () => b();
const b = () => a();
a();
