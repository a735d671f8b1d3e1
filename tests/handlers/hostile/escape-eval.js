// row: H9
// expect: EXECUTION_ERROR
return eval('1');
