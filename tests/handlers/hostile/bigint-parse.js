// row: H3
// expect: TIMEOUT | EXECUTION_ERROR
for (;;) BigInt('9'.repeat(1000000));
