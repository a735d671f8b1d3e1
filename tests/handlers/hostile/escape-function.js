// expect: EXECUTION_ERROR
return (() => {}).constructor('return 1')();
