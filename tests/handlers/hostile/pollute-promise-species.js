// row: H8
// expect: success | EXECUTION_ERROR
Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('species'); } });
Promise.prototype.constructor = function () { throw 1; };
await Promise.resolve(1).then(x => x);
return 1;
