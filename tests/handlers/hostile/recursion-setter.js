// row: H4
// expect: EXECUTION_ERROR RangeError
const o = { set x(v) { this.x = v; } };
o.x = 1;
