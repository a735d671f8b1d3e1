// row: H4
// expect: EXECUTION_ERROR RangeError
class C { static [Symbol.hasInstance](x) { return x instanceof C; } }
({}) instanceof C;
