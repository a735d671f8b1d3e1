// row: H4
// expect: EXECUTION_ERROR RangeError
const o = { get x() { return this.x; } };
o.x;
