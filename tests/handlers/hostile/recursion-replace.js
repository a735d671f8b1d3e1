// row: H4
// expect: EXECUTION_ERROR RangeError
const f = () => 'a'.replace(/a/, f);
f();
