// row: H4
// expect: COMPILATION_ERROR | EXECUTION_ERROR RangeError | success | RESOURCE_LIMIT
// wrap: 60000 [ ]
1
