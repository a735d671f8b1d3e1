// row: H4
// expect: EXECUTION_ERROR RangeError
const o = { toString() { return '' + this; } };
'' + o;
