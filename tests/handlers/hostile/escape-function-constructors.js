// row: H9
// expect: EXECUTION_ERROR
const AsyncFunction = (async () => {}).constructor;
return await AsyncFunction('return 1')();
