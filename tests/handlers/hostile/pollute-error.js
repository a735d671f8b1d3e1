// row: H8
// expect: EXECUTION_ERROR | TIMEOUT
// the description of an error must not run into the loop for ever
Error.prepareStackTrace = () => { for (;;); };
Object.defineProperty(Error.prototype, 'message', { get() { throw 1; } });
Object.defineProperty(Error.prototype, 'name', { get() { throw 1; } });
throw new Error();
