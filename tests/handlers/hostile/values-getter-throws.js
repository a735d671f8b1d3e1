// row: H8
// expect: EXECUTION_ERROR
return { get x() { throw new TypeError("no"); } };
