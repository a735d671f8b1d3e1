// row: H3
// expect: EXECUTION_ERROR RangeError
const a = [];
a.push(a);
a.flat(Infinity);
