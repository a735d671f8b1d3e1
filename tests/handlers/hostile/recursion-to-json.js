// row: H4
// expect: EXECUTION_ERROR RangeError
const o = { toJSON() { return JSON.stringify(this); } };
JSON.stringify(o);
