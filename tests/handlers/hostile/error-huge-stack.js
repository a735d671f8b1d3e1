// row: H10
// expect: EXECUTION_ERROR
const e = new Error('x');
Object.defineProperty(e, 'stack', { value: '\u001b[31m'.repeat(1e6) });
throw e;
