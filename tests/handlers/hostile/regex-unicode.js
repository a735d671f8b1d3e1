// row: H2
// expect: TIMEOUT
return /^(\p{L}+)+$/u.test('a'.repeat(40) + '1');
