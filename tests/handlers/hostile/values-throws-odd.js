// row: H8
// expect: EXECUTION_ERROR
throw Object.create(null, { message: { get() { return this; } } });
