// row: H8
// expect: EXECUTION_ERROR
throw new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } });
