// row: H3
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
return 'x'.repeat(2 ** 29).repeat(4).length;
