// row: H4
// expect: EXECUTION_ERROR
let e = new Error('first');
for (let i = 0; i < 1e5; i++) e = new Error('next', { cause: e });
throw e;
