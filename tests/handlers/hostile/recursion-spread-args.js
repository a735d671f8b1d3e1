// row: H4
// expect: EXECUTION_ERROR RangeError | success
return Math.max(...new Array(1e6).fill(1));
