// row: H4
// expect: EXECUTION_ERROR RangeError
const f = () => JSON.parse('[1]', f);
f();
