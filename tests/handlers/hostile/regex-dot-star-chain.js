// row: H2
// expect: TIMEOUT | success | COMPILATION_ERROR
for (;;) /.*.*.*.*.*.*.*.*=/.test('x'.repeat(5000));
