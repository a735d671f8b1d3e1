// row: H5
// expect: RESOURCE_LIMIT | MEMORY_LIMIT
return new Array(30).fill('x'.repeat(1e6));
