// row: H4
// expect: EXECUTION_ERROR RangeError
function f() { f(); }
f();
