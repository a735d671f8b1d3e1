// row: H9
// expect: EXECUTION_ERROR
return (function* () {}).constructor('yield 1')().next().value;
