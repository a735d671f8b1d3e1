// row: H8
// expect: success | EXECUTION_ERROR | TIMEOUT
Promise.prototype.then = function () { throw new Error('stolen'); };
await null;
return 1;
