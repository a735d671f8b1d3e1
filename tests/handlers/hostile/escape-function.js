// row: H9
// expect: EXECUTION_ERROR
return (() => {}).constructor('return 1')();
