// row: H4
// expect: EXECUTION_ERROR RangeError
const p = new Proxy({}, { has: (t, k) => k in p });
'x' in p;
