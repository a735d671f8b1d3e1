// row: H9
// expect: success | EXECUTION_ERROR
return (function () { return typeof arguments.callee.caller; })();
