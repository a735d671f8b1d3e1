// row: H4
// expect: EXECUTION_ERROR RangeError
function F() { return Reflect.construct(F, []); }
new F();
