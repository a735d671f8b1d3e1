// row: H9
// expect: EXECUTION_ERROR
return (() => {}).constructor.bind(null, 'return 1')()();
