// row: H10
// expect: EXECUTION_ERROR | MEMORY_LIMIT
throw new Error('x'.repeat(12e6));
