// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR RangeError | EXECUTION_ERROR InternalError
let s = 'xy';
for (;;) s = s + s + s.length;
