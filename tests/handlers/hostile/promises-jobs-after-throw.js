// row: H6
// expect: EXECUTION_ERROR | TIMEOUT
const again = () => { Promise.resolve().then(again); };
again();
throw new Error('done');
