// row: H2
// expect: TIMEOUT | success | COMPILATION_ERROR
return /^(?<x>a|aa)+$/.test('a'.repeat(60) + 'b');
