// row: H6
// expect: EXECUTION_ERROR
let a, b;
a = (async () => { await null; await b; })();
b = (async () => { await a; })();
await b;
