// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
return new ArrayBuffer(2 ** 31);
