// expect: EXECUTION_ERROR
await new Promise(() => {});
