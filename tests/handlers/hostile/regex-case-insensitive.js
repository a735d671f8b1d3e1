// row: H2
// expect: TIMEOUT | success | COMPILATION_ERROR
return /^(a|A|aa)+$/iu.test('aA'.repeat(30) + 'b');
