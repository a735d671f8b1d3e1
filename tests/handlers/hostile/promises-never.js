// row: H6
// expect: EXECUTION_ERROR
await new Promise(() => {});
