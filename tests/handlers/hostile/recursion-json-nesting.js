// row: H4
// expect: EXECUTION_ERROR RangeError | EXECUTION_ERROR SyntaxError
JSON.parse('['.repeat(1e6));
