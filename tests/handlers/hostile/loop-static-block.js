// row: H1
// expect: TIMEOUT
class C { static { for (;;); } }
