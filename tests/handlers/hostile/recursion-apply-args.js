// row: H4
// expect: EXECUTION_ERROR RangeError | success
return String.fromCharCode.apply(null, new Array(2e6).fill(65)).length;
