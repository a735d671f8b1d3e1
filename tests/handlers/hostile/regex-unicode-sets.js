// row: H2
// expect: TIMEOUT | success | COMPILATION_ERROR
return /^([\p{L}--[b]]+)+$/v.test('a'.repeat(40) + 'b');
