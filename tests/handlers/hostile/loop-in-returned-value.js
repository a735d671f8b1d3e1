// row: H1
// expect: TIMEOUT
// runs while the result is encoded
return { get x() { for (;;); } };
