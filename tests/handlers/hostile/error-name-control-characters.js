// row: H10
// expect: EXECUTION_ERROR
const e = new Error('\u001b[2J\nERROR forged');
e.name = '\u001b[31m\n' + 'N'.repeat(10000);
throw e;
