// row: H10
// expect: EXECUTION_ERROR
throw new Error('\u001b[2J\u0000'.repeat(10000));
