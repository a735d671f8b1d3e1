// expect: EXECUTION_ERROR
return eval('1');
