// row: H1
// expect: TIMEOUT | EXECUTION_ERROR
// the description of the error is what loops
throw { get message() { for (;;); } };
