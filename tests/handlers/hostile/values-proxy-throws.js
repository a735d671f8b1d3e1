// row: H8
// expect: EXECUTION_ERROR
return new Proxy({}, { ownKeys() { throw new TypeError("no"); } });
