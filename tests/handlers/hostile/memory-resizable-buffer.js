// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError
const b = new ArrayBuffer(8, { maxByteLength: 2 ** 30 });
b.resize(2 ** 30);
return 1;
