// row: H3
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
JSON.parse('[' + '1,'.repeat(25e6) + '1]');
